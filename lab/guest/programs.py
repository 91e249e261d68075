"""The programs that run in guests, and the command line that runs them there."""

import base64
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lab.probes import PROGRAMS

# Programs that run in a guest, by their names below these folders.
FOLDERS = (Path(__file__).parent / "remote", PROGRAMS)

# Runs programs in one interpreter: starting one takes half a second in an emulated guest.
LOADER = """
import base64, contextlib, io, json, subprocess, sys
results = []
for name, source, argument in json.loads(sys.argv.pop(1)):
    sys.argv[1:] = [argument]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            exec(compile(base64.b64decode(source), name, "exec"), {"__name__": "__main__"})
        except subprocess.CalledProcessError as error:
            sys.exit("%s: %s%s" % (" ".join(error.cmd), error.stdout, error.stderr))
        except OSError as error:
            sys.exit("%s: %s" % (name, error))
    results.append(json.loads(output.getvalue()))
print(json.dumps(results))
"""


def program_files() -> list[Path]:
    """Every program that runs in guests."""
    return sorted(file for folder in FOLDERS for file in folder.rglob("*.py"))


@cache
def source(file: Path) -> str:
    """The text of a program, read once in the life of a process: a run recorded the digest of it."""
    return file.read_text()


def program_file(name: str) -> Path:
    """The source of one of them, for example `begin` or `knobs/sysctl`."""
    return next(file for folder in FOLDERS if (file := folder / f"{name}.py").is_file())


def command(calls: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """The command that runs programs one after another in one interpreter, each with a JSON argument."""
    wanted = [
        (name, base64.b64encode(source(program_file(name)).encode()).decode(), json.dumps(argument))
        for name, argument in calls
    ]
    # The programs need the standard library only, and not what `site` looks for.
    return ["python3", "-I", "-S", "-c", LOADER, json.dumps(wanted)]


def results(printed: str, count: int) -> list[Any]:
    """The JSON that each of `count` programs printed, from what the command printed. Raises ValueError."""
    try:
        found = json.loads(printed)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"expected a list with {count} results")
    # Half of a surrogate pair, as Python reads what is no UTF-8 in a guest's files, can be written to no file.
    whole: list[Any] = json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))
    return whole
