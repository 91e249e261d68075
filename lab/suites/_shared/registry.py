"""A registry on the loopback interface that has one image under every name: an OCI image layout.

Interface: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md, pulling only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

REQUEST = re.compile(r"/v2/.+/(?P<kind>manifests|blobs)/(?:(?P<digest>sha256:[0-9a-f]{64})|[\w.-]+)", re.ASCII)


@contextmanager
def serving(*, needed: bool) -> Iterator[str | None]:
    """Serve the first image of the layout LAB_ROOTFS, if that is needed; yields the address, as HOST:PORT."""
    if not needed:
        yield None
        return
    layout = Path(os.environ["LAB_ROOTFS"])
    [first, *_] = json.loads((layout / "index.json").read_text())["manifests"]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(with_content=True)

        def do_HEAD(self) -> None:
            self.answer(with_content=False)

        def answer(self, *, with_content: bool) -> None:
            if self.path == "/v2/":
                self.send(b"{}", "application/json", {}, with_content=with_content)
                return
            request = REQUEST.fullmatch(self.path)
            digest = request and (request["digest"] or first["digest"])
            blob = layout / "blobs" / str(digest).replace(":", "/")
            if request is None or not blob.is_file():
                self.send_error(404)
                return
            content, kind = blob.read_bytes(), "application/octet-stream"
            if request["kind"] == "manifests":
                kind = json.loads(content).get("mediaType", first["mediaType"])
            self.send(content, kind, {"Docker-Content-Digest": str(digest)}, with_content=with_content)

        def send(self, content: bytes, kind: str, headers: dict[str, str], *, with_content: bool) -> None:
            self.send_response(200)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_content:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
