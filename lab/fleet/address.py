"""Where the coordinator listens, as --hosts and `lab worker` take it."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from lab.base.errors import UsageError

PORT = 8786
EXAMPLE = f"for example tls://127.0.0.1:{PORT}"


@dataclass(frozen=True)
class Address:
    """A host, or an address of it, and a port; 0 stands for any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str) -> "Address":
        """Parse tls://HOST:PORT, or tcp+tls://HOST:PORT. Raises UsageError, which names the option."""
        try:
            found = urlsplit(text)
            host, port = found.hostname, found.port
        except ValueError as error:
            raise UsageError(f"{option} {text}: {error}", hint=EXAMPLE) from error
        if found.scheme in ("tcp", "ws", "ucx", "inproc"):
            raise UsageError(f"{option} {text}: hosts speak TLS, and nothing else", hint=EXAMPLE)
        if (
            found.scheme not in ("tls", "tcp+tls")
            or not host
            or found.path
            or found.query
            or found.username is not None
        ):
            raise UsageError(f"{option} {text}: expected tls://HOST:PORT", hint=EXAMPLE)
        return cls(host, PORT if port is None else port)

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"tls://{name}:{self.port}"
