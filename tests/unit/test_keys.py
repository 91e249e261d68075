import base64
from io import StringIO

import paramiko

from lab.machine import keys


def test_a_generated_pair_is_one_that_ssh_understands() -> None:
    pair = keys.generate("lab")
    private = paramiko.Ed25519Key.from_private_key(StringIO(pair.private))
    kind, public, comment = pair.public.split()
    assert (kind, comment) == ("ssh-ed25519", "lab")
    assert private == paramiko.Ed25519Key(data=base64.b64decode(public))


def test_no_two_pairs_are_alike() -> None:
    assert keys.generate("lab").public != keys.generate("lab").public
