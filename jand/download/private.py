"""Keeps downloads away from this machine and its network: addresses are judged after name resolution, on the very socket that is about to connect.

A name that leads to a private address, or an address in disguise (mapped into IPv6, 6to4, NAT64, written as one number), is refused; a later change of the name's answer does
not matter, since nothing is resolved twice.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final

from aiohttp import ThreadedResolver
from typing_extensions import override

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult
    from aiohttp.connector import AddrInfoType

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class RefusedAddressError(OSError):
    """A connection to a private address was about to be made."""


def is_private(address: str) -> bool:
    """Whether *address*, an IP address, is not one of the public internet; anything that cannot be parsed counts as private."""
    try:
        ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(ip, ipaddress.IPv6Address):
        hidden = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            hidden = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if hidden is not None:
            ip = hidden
    return not ip.is_global or ip.is_multicast


def refuse(host: str, address: str) -> None:
    if is_private(address):
        message = f"{host} is {address}, a private address" if host != address else f"{address} is a private address"
        raise RefusedAddressError(message)


class PublicResolver(ThreadedResolver):
    """Resolves to public addresses, or refuses."""

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        for each in found:
            refuse(host, each["host"])
        return found


def public_socket(info: AddrInfoType) -> socket.socket:
    """Make the socket for a connection to a public address; addresses in URLs come here without having been resolved."""
    family, kind, protocol, _, target = info
    address = str(target[0])
    refuse(address, address)
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made
