"""Keeps the log messages of libraries off the terminal."""

import logging


def quiet_libraries() -> None:
    """Silence Paramiko, which logs a traceback for each broken connection; the lab reports these itself."""
    for name in ("paramiko", "fabric", "invoke"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
