"""Which addresses an uploaded kubeconfig may make the service connect to (the guard against request forgery)."""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp.abc import AbstractResolver, ResolveResult

_NAT64 = IPv6Network("64:ff9b::/96")
_METADATA = frozenset({IPv4Address("168.63.129.16")})
"""Cloud metadata on addresses that count as public (Azure's); the others' are link-local or private."""


class AddressRefused(OSError):
    """The host is, or resolves to, an address that is off limits."""


class AddressGuard:
    """Public addresses pass; others only where the configuration allows their host or network by name."""

    def __init__(self, allow: Iterable[str] = ()) -> None:
        """`allow` holds host names and CIDRs (or addresses)."""
        self._hosts: set[str] = set()
        self._networks = []
        for entry in allow:
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                self._hosts.add(_plain(entry))

    def allows(self, host: str) -> bool:
        """Whether the configuration names the host itself, or its address where it is written as one."""
        if _plain(host) in self._hosts:
            return True
        try:
            return self._in_networks(ip_address(host))
        except ValueError:
            return False

    def permits(self, host: str, address: str) -> bool:
        ip = ip_address(address.partition("%")[0])
        return _plain(host) in self._hosts or self._in_networks(ip) or _is_public(ip)

    async def addresses(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[str]:
        """Resolves `host`. Raises AddressRefused where any of its addresses is off limits, OSError where it has
        none."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self.permits(host, address):
                raise AddressRefused(f"{host} has not a public address")  # which one is nobody's business
        return addresses

    def _in_networks(self, ip: IPv4Address | IPv6Address) -> bool:
        return any(ip.version == network.version and ip in network for network in self._networks)


def _plain(host: str) -> str:
    return host.rstrip(".").lower()


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return ip.is_global and not ip.is_multicast and ip not in _METADATA


class GuardedResolver(AbstractResolver):
    """Resolves for the connection itself, so that what is checked is what is connected to (no rebinding between)."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._guard.addresses(host, port, family)
        ]

    async def close(self) -> None:
        return None
