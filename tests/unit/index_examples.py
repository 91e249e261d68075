"""Tiny wheels, and a package index on 127.0.0.1 that has them."""

import base64
import contextlib
import hashlib
import html
import http.server
import shutil
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename

from lab.base.process import CommandFailed

PURE = "py3-none-any"


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *needs: str,
    tags: str = PURE,
    extras: Sequence[str] = (),
    python: str = "",
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """A wheel with nothing but a module, its METADATA and the files in `more`."""
    project = name.replace("-", "_")
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}"] if python else []
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {need}" for need in needs]
    information = f"{project}-{version}.dist-info"
    path = folder / f"{project}-{version}-{tags}.whl"
    files = {
        f"{project}/__init__.py": b"",
        f"{information}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{information}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n".encode(),
        **(more or {}),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
        wheel.writestr(f"{information}/RECORD", _record(files) + f"{information}/RECORD,,\n")
    return path


def _record(files: Mapping[str, bytes]) -> str:
    digests = {name: hashlib.sha256(content).digest() for name, content in files.items()}
    texts = {name: base64.urlsafe_b64encode(each).decode().rstrip("=") for name, each in digests.items()}
    return "".join(f"{name},sha256={texts[name]},{len(content)}\n" for name, content in files.items())


def choose(folder: Path, command: Sequence[str | Path]) -> None:
    """Do what `pip download --no-deps` does, but at once, with an index that is a folder of pure wheels.

    Raises CommandFailed, as pip fails, if nothing meets what is asked.
    """
    words = [str(word) for word in command]
    target = Path(words[words.index("--dest") + 1])
    target.mkdir(exist_ok=True)
    asked: dict[NormalizedName, SpecifierSet] = {}
    for word in words[words.index("--dest") + 2 :]:
        if not word.startswith("-") and words[words.index(word) - 1] != "--platform":
            requirement = Requirement(word)
            name = canonicalize_name(requirement.name)
            asked[name] = asked.get(name, SpecifierSet()) & requirement.specifier
    for name, specifier in asked.items():
        found = {
            version: path
            for path in folder.glob("*.whl")
            for its_name, version, _, _ in [parse_wheel_filename(path.name)]
            if its_name == name and version in specifier
        }
        if not found:
            raise CommandFailed(command, "exit status 1", f"ERROR: No matching distribution found for {name}")
        shutil.copy(found[max(found)], target)


def _page(wheels: Sequence[Path], pythons: Mapping[str, str]) -> str:
    links = []
    for wheel in wheels:
        python = html.escape(pythons.get(wheel.name, ""))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        allowed = f' data-requires-python="{python}"' if python else ""
        links.append(f'<a href="/files/{wheel.name}#sha256={digest}"{allowed}>{wheel.name}</a>')
    return "<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>"


@contextlib.contextmanager
def index(folder: Path, pythons: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of an index that serves the wheels of a folder.

    `pythons` are the Pythons that the index, by a wheel's name, says it is for.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "files":
                self._send((folder / Path(name).name).read_bytes(), "application/octet-stream")
                return
            wheels = [
                wheel
                for wheel in sorted(folder.glob("*.whl"))
                if parse_wheel_filename(wheel.name)[0] == name.strip("/")
            ]
            if wheels:
                self._send(_page(wheels, pythons or {}).encode(), "text/html")
            else:
                self.send_error(404)

        def _send(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            server.shutdown()
            thread.join()
