"""What the libraries say, kept off the terminal."""

import logging


def quiet_libraries() -> None:
    """Paramiko logs each broken connection with a traceback; the lab reports those itself."""
    for name in ("paramiko", "fabric", "invoke"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
