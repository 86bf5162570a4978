"""What the client library raises, in our words: why a provider cannot be asked, and what mends it. Nothing of the foreign error's own text that could hold an address or a header."""

from __future__ import annotations

import os
import ssl
from typing import Final

import aiohttp

FAILURES: Final = (aiohttp.ClientError, OSError, TimeoutError)
"""What asking a provider may raise besides our own errors."""

SEEN_BY_A_RETRY: Final = (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
"""What another attempt may mend: nobody listens yet, or a kept connection had been closed just when it was used."""

LASTING: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)

NETWORK: Final = "check the network and the origin in its JSON"


def is_passing(error: BaseException) -> bool:
    """Whether *error* is worth another attempt. A timeout is not: it was long enough, and what was sent may be at work."""
    return isinstance(error, SEEN_BY_A_RETRY) and not isinstance(error, (*LASTING, TimeoutError))


def explain(error: BaseException) -> tuple[str, str]:
    """Return what the provider did or is, to stand after its name, and a hint."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            cause = error.certificate_error
            said = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else "it is not valid"
            return f"has a certificate that is not accepted ({said})", "check the origin and the clock of this machine"
        case aiohttp.ClientConnectorSSLError():
            return "does not speak TLS there", "check the port and the scheme of the origin"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return "cannot be reached: the proxy does not let us through", "check the proxy settings of the daemon"
        case aiohttp.ClientConnectorDNSError():
            return "cannot be reached: its name cannot be resolved", NETWORK
        case aiohttp.ClientConnectorError():
            return f"cannot be reached: {_system_word(error.os_error)}", NETWORK
        case aiohttp.ConnectionTimeoutError():
            return "cannot be reached: nobody answers", NETWORK
        case TimeoutError():
            return "did not answer in time", "try again; its status page may know more"
        case aiohttp.ClientResponseError():
            return "does not speak HTTP there", "check the port and the scheme of the origin"
        case _:
            return "closed the connection", "try again; its status page may know more"


def _system_word(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno is not None and error.errno > 0 else "the connection failed"
