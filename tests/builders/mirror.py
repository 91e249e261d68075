"""A distribution's mirror on the loopback interface that can fail in many ways, and keys to sign with."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from lab import catalog
from lab.base.paths import PACKAGE
from lab.catalog import CloudImage, Guest, SignatureForm

HOSTS = re.compile(r"https://[\w.-]+")


class Request(BaseHTTPRequestHandler):
    """One request; `mirror` is set by the mirror that it is made to."""

    mirror: "Mirror"

    def do_GET(self) -> None:
        # The client may hang up early.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.answer()

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self) -> None:
        self.mirror.requests.append((self.path, self.headers.get("Range")))
        steps = self.mirror.faults[self.path]
        body = self.mirror.files.get(self.path)
        if steps:
            steps.pop(0)(self, body or b"")
        elif body is None:
            status(404)(self, b"")
        else:
            well(self, body)

    def head(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


Answer = Callable[[Request, bytes], None]


def well(request: Request, body: bytes) -> None:
    """Send the whole file, or the rest to a client that has its beginning."""
    breaks_off(len(body))(request, body)


def breaks_off(after: int) -> Answer:
    """Send a file so, but close the connection after this many bytes."""

    def answer(request: Request, body: bytes) -> None:
        begin = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if begin and begin >= len(body):
            request.head(416, Content_Range=f"bytes */{len(body)}", Content_Length="0")
            return
        more = {"Content_Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"} if begin else {}
        request.head(206 if begin else 200, Content_Length=str(len(body) - begin), **more)
        request.wfile.write(body[begin : begin + after])

    return answer


def whole(request: Request, body: bytes) -> None:
    """Send the whole file, even if a range was requested."""
    request.head(200, Content_Length=str(len(body)))
    request.wfile.write(body)


def endless(request: Request, body: bytes) -> None:
    """Send the whole file without its length."""
    request.head(200)
    request.wfile.write(body)


def status(code: int) -> Answer:
    """Send only a status."""
    return lambda request, _body: request.head(code, Content_Length="0")


def redirect(to: str) -> Answer:
    return lambda request, _body: request.head(302, Location=to, Content_Length="0")


class Mirror:
    """A mirror: the files by path, the faults to inject by path, and the requests with their ranges."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.host = url.removeprefix("http://")
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Answer]] = defaultdict(list)
        self.requests: list[tuple[str, str | None]] = []

    def publish(self, guest: Guest, disk: bytes, key: "SigningKey | None" = None) -> None:
        """Serve a guest's disk, and its checksums as the distribution signs them."""
        image = cloud(guest)
        self.files[path_of(guest)] = disk
        self.list_builds(guest, str(image.build))
        if image.checksums is None:
            return
        assert key is not None
        name = path_of(guest).rpartition("/")[2]
        digest = hashlib.sha256(disk).hexdigest()
        if image.checksums.form.suffix:
            self.sign(guest, f"{'0' * 64} *another-{name}\n{digest} *{name}\n", key)
        else:
            self.sign(guest, f"# {name}: {len(disk)} bytes\nSHA256 ({name}) = {digest}\n", key)

    def list_builds(self, guest: Guest, *builds: str) -> None:
        """Serve the listing of the folder that holds a guest's builds."""
        before, _, after = urlsplit(cloud(guest).url).path.partition("{build}")
        folder, _, prefix = before.rpartition("/")
        names = [f"{prefix}{build}{after.partition('/')[0]}" for build in builds]
        links = "".join(f'<a href="{name}{"/" if "/" in after else ""}">{name}</a>\n' for name in names)
        self.files[f"{folder}/"] = f'<a href="../">..</a>\n<a href="release/">r</a>\n{links}'.encode()

    def sign(self, guest: Guest, text: str, key: "SigningKey") -> None:
        """Serve this text as the guest's checksum file."""
        checksums, path = cloud(guest).checksums, checksums_path(guest)
        assert checksums is not None
        if suffix := checksums.form.suffix:
            self.files[path] = text.encode()
            armour = ["--armor"] if checksums.form is SignatureForm.ARMOURED else []
            self.files[f"{path}{suffix}"] = key.sign(text, *armour, "--detach-sign")
        else:
            self.files[path] = key.sign(text, "--clear-sign")


def cloud(guest: Guest) -> CloudImage:
    assert isinstance(guest.image, CloudImage)
    return guest.image


def path_of(guest: Guest) -> str:
    return urlsplit(cloud(guest).address or "").path


def checksums_path(guest: Guest) -> str:
    return urlsplit(cloud(guest).checksums_address or "").path


@contextmanager
def serving() -> Iterator[Mirror]:
    class Bound(Request):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
        mirror = Bound.mirror = Mirror(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield mirror
        finally:
            server.shutdown()
            thread.join()


class SigningKey:
    """A key made for a test; `at` is the time at which it signs, if not now."""

    def __init__(self, home: Path, name: str, *, expires: str = "never", at: str | None = None) -> None:
        self._home, self._name = home, name
        self._when = ["--faked-system-time", f"{at}!"] if at else []
        self._gpg("--quick-generate-key", name, "ed25519", "sign", expires)
        self.public = self._gpg("--armor", "--export", name).decode()

    def sign(self, text: str, *how: str) -> bytes:
        return self._gpg("--local-user", self._name, *how, text=text)

    def _gpg(self, *arguments: str, text: str = "") -> bytes:
        command = ["gpg", "--batch", "--quiet", "--homedir", str(self._home), "--passphrase", "", *self._when]
        done = subprocess.run([*command, *arguments], input=text.encode(), capture_output=True, check=True)
        return done.stdout


@contextmanager
def key_ring() -> Iterator[Path]:
    """A folder for keys; gpg's agent is stopped with it."""
    # Not below pytest's folder: a socket's path must be short.
    home = Path(tempfile.mkdtemp(prefix="lab-gpg-"))
    try:
        yield home
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": str(home)}, check=True)
        shutil.rmtree(home)


def definitions(root: Path, url: str, key: SigningKey) -> Path:
    """Copy the lab's definitions, with all distributions at this URL and signing with this key."""
    for name in ("images", "cloud-init"):
        shutil.copytree(PACKAGE.parent / name, root / name)
    for file in (root / "images").glob("*.toml"):
        file.write_text(HOSTS.sub(url, file.read_text()))
    for file in (root / "images" / "keys").iterdir():
        file.write_text(key.public)
    return root


def pin(root: Path, name: str, build: str, digest: str) -> None:
    file = root / "images" / f"{name}.toml"
    lines = f'kind = "cloud"\nbuild = "{build}"\ndigest = "{digest}"'
    file.write_text(file.read_text().replace('kind = "cloud"', lines))


def guest(name: str) -> Guest:
    return catalog.load_catalog().guest(name)
