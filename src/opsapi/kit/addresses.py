"""Which addresses the service may be made to connect to by what callers sent: the guard against request forgery."""

import asyncio
import socket
from collections.abc import Iterable
from concurrent.futures import Executor
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_METADATA = frozenset({IPv4Address("168.63.129.16")})
"""Cloud metadata on addresses that count as public (Azure's); the others' are link-local or private."""


class AddressRefused(OSError):
    """The host is, or resolves to, an address that is off limits."""


class AddressGuard:
    """Public addresses pass; others only where the configuration allows their host or network by name."""

    def __init__(self, allow: Iterable[str] = (), executor: Executor | None = None) -> None:
        """`allow` holds host names and CIDRs (or addresses). Names are resolved on `executor`'s threads, by default
        the event loop's: where hostile names could hold all of them, give it threads of its own."""
        self._executor = executor
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
        return _plain(host) in self._hosts or self._in_networks(ip) or is_public(ip)

    async def addresses(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[str]:
        """Resolves `host`. Raises AddressRefused where any of its addresses is off limits, OSError where it has
        none."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._executor, socket.getaddrinfo, host, port, family, socket.SOCK_STREAM
        )
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self.permits(host, address):
                raise AddressRefused(f"{host} has not a public address")  # which one is nobody's business
        return addresses

    def _in_networks(self, ip: IPv4Address | IPv6Address) -> bool:
        return any(ip.version == network.version and ip in network for network in self._networks)


def is_public(ip: IPv4Address | IPv6Address) -> bool:
    """Whether anybody on the internet could reach it. An IPv6 address that carries an IPv4 one (mapped, compatible,
    6to4, Teredo, NAT64) is as public as that; a multicast one never is."""
    if isinstance(ip, IPv6Address):
        inner = _carried(ip)
        if inner is not None:
            return is_public(inner)
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and ip not in _METADATA


def _carried(ip: IPv6Address) -> IPv4Address | None:
    if ip in _NAT64 or ip in _COMPATIBLE:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def _plain(host: str) -> str:
    return host.rstrip(".").lower()
