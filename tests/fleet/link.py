"""A link between a host and its coordinator that can be cut, without any right to change the network."""

import socket
import threading
from contextlib import suppress


class Link:
    """A way to a port of this host that can be cut: what is sent then gets stuck, as on a dead line.

    `sent` and `got` count the bytes that the one who uses it sent and got.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent = self.got = 0
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tls://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._listener.close()
        self.mend()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                for source, target in ((near, far), (far, near)):
                    carry = (source, target, source is near)
                    threading.Thread(target=self._carry, args=carry, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, is_sent: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
                if is_sent:
                    self.sent += len(data)
                else:
                    self.got += len(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
