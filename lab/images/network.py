"""Whether servers can be reached at all: asked once and briefly, unlike a download, which is tried again."""

import threading
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

import httpx

from lab.images.download import describe

# How long a server may take to answer at all. Looking up a name has no limit of its own.
SECONDS = 5.0


def unreachable(urls: Iterable[str]) -> dict[str, str]:
    """Return the hosts of these URLs that cannot be reached, each with the reason. All are asked at once.

    Any answer counts, an error too: what is wrong with one file says the download.
    """
    servers = {parts.netloc: f"{parts.scheme}://{parts.netloc}/" for parts in map(urlsplit, urls)}
    reasons = dict.fromkeys(servers, f"no answer within {SECONDS:.0f} s")
    threads = [
        threading.Thread(target=_ask, args=(host, url, reasons), daemon=True) for host, url in servers.items()
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {host: reason for host, reason in dict(reasons).items() if reason}


def _ask(host: str, url: str, reasons: dict[str, str]) -> None:
    try:
        httpx.head(url, timeout=SECONDS)
        reasons[host] = ""
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reasons[host] = describe(error)
