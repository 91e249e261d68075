"""The lab's command line. It also writes the client keys of its lanes into $CAMPAIGN_KEYS, so that faults can
be made inside of its guests."""

import os
from pathlib import Path

from lab.cli import main
from lab.machine import seed

_generate = seed.make_keys


def generate(comment: str) -> seed.KeyPair:
    """As the lab's own function, and keep the key if it is a client's."""
    pair = _generate(comment)
    if comment == "lab":
        folder = Path(os.environ["CAMPAIGN_KEYS"])
        file = folder / f"{len(list(folder.iterdir())):03}"
        file.touch(0o600)
        file.write_text(pair.private)
    return pair


if __name__ == "__main__":
    # `python -m` has named the program after this file.
    seed.make_keys = generate
    main()
