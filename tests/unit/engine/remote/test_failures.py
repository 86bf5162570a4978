"""What the client library raises, in our words; those that no server of a test can bring about are made by hand."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, cast

import aiohttp
import pytest

from jand.engine.remote.failures import explain, is_passing

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey

KEY = cast("ConnectionKey", type("Key", (), {"host": "api.example.com", "port": 443, "ssl": True, "is_ssl": True}))


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_message = "certificate has expired"
    return error


CASES: list[tuple[BaseException, str, bool]] = [
    (
        aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known")),
        "name cannot be resolved",
        True,
    ),
    (aiohttp.ClientConnectorError(KEY, OSError(113, "x")), "cannot be reached: no route to host", True),
    (aiohttp.ClientConnectorError(KEY, OSError("x")), "cannot be reached: the connection failed", True),
    (aiohttp.ClientConnectorCertificateError(KEY, untrusted()), "(certificate has expired)", False),
    (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "WRONG_VERSION_NUMBER")), "does not speak TLS", False),
    (aiohttp.ClientProxyConnectionError(KEY, OSError(111, "x")), "the proxy does not let us through", True),
    (aiohttp.ConnectionTimeoutError("x"), "nobody answers", False),
    (aiohttp.SocketTimeoutError("x"), "did not answer in time", False),
    (TimeoutError(), "did not answer in time", False),
    (aiohttp.ServerDisconnectedError(), "closed the connection", True),
    (aiohttp.ClientOSError(104, "x"), "closed the connection", True),
    (aiohttp.ClientPayloadError("x"), "closed the connection", False),
]


@pytest.mark.parametrize(("error", "cause", "passing"), CASES, ids=lambda case: type(case).__name__)
def test_what_a_failure_means_and_whether_it_passes(error: BaseException, cause: str, passing: bool) -> None:
    said, hint = explain(error)

    assert cause in said
    assert hint
    assert is_passing(error) is passing
