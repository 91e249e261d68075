"""Asks whether a coordinator is there and takes this host's certificate: dask would not say why it does not."""

import asyncio
import ssl
from contextlib import suppress

from lab.base.errors import UsageError
from lab.fleet.address import Address

SECONDS = 10.0
NEXT = "lab hosts list shows the certificates; each host needs a valid one of the coordinator's own CA"
# What TLS says, in the words of whoever has to act.
REASONS = {
    "TLSV1_ALERT_UNKNOWN_CA": "the certificate of this host is from a CA that the coordinator does not know",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "this host showed no certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate of this host has expired, says the coordinator",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the certificate of this host is no good, says the coordinator",
}


class NoAnswer(Exception):
    """Nobody is there, or not yet."""


async def greet(address: Address, context: ssl.SSLContext) -> None:
    """Connect, and wait for the first byte that a coordinator sends to hosts that it trusts.

    Raises NoAnswer, or UsageError if either side refuses the other.
    """
    try:
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
            try:
                # With TLS 1.3 a refusal comes only now.
                if not await reader.read(1):
                    raise NoAnswer("it closed the connection")
            finally:
                writer.close()
                with suppress(OSError, ssl.SSLError):
                    await writer.wait_closed()
    except ssl.SSLCertVerificationError as error:
        raise UsageError(
            f"the coordinator at {address} is not trusted: {error.verify_message}", hint=NEXT
        ) from error
    except ssl.SSLError as error:
        why = REASONS.get(str(error.reason), str(error.reason or error))
        raise UsageError(f"the coordinator at {address} refuses this host: {why}", hint=NEXT) from error
    except (OSError, TimeoutError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error
