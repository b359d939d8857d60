"""Client addresses: allow-lists, and whom to believe about where a request came from."""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """None for what is no address. An IPv4 address mapped into IPv6 is the IPv4 one; zones are refused."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def parse_network(text: str) -> Network:
    """`10.0.0.0/8`, `2001:db8::/32` or one address. Raises ValueError, also where host bits are set."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is no address range (write it like 10.0.0.0/8 or 2001:db8::/32)") from None
    if isinstance(network, ipaddress.IPv6Network):
        if "%" in text:
            raise ValueError(f"{text[:64]!r}: zones are not supported")
        if network.prefixlen >= 96 and network.network_address.ipv4_mapped is not None:
            inner = network.network_address.ipv4_mapped
            return ipaddress.IPv4Network((inner, network.prefixlen - 96))
    return network


class AddressSet:
    """A set of ranges. An empty allow-list allows every address: see `allows`."""

    __slots__ = ("_known", "_networks")

    def __init__(self, ranges: Iterable[str]) -> None:
        """Raises ValueError for what is no range."""
        self._networks = tuple(parse_network(text) for text in ranges)
        # Each request asks, and its address is nearly always one of a few.
        self._known: dict[str, bool] = {}

    def __contains__(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._networks)

    def allows(self, text: str) -> bool:
        """As an allow-list. What is no address (a Unix socket's peer) is refused as soon as there is any range."""
        if not self._networks:
            return True
        known = self._known.get(text)
        if known is None:
            address = parse_address(text)
            known = address is not None and address in self
            if len(self._known) < 1024:
                self._known[text] = known
        return known

    def excess(self, ranges: Iterable[str]) -> list[str]:
        """Those of `ranges` that are not wholly inside one of ours."""
        return [text for text in ranges if not self._covers(parse_network(text))]

    def _covers(self, inner: Network) -> bool:
        return any(
            (
                isinstance(inner, ipaddress.IPv4Network)
                and isinstance(outer, ipaddress.IPv4Network)
                and inner.subnet_of(outer)
            )
            or (
                isinstance(inner, ipaddress.IPv6Network)
                and isinstance(outer, ipaddress.IPv6Network)
                and inner.subnet_of(outer)
            )
            for outer in self._networks
        )


def _hop(text: str) -> Address | None:
    """An entry of X-Forwarded-For; some proxies add a port: `192.0.2.1:443`, `[2001:db8::1]:443`."""
    text = text.strip(" \t")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return parse_address(text)


def client_address(peer: str, forwarded: Sequence[str], trusted: AddressSet) -> str:
    """Where a request came from: the first hop, from the right, that is none of our proxies.

    `forwarded` holds the X-Forwarded-For header's values in order. Only a trusted proxy is believed, and only about
    the hop before it; what stands further left may be the client's own invention. At an entry that is no address the
    walk ends with the last proxy.
    """
    current = parse_address(peer)
    if current is None:
        return peer
    hops = [hop for value in forwarded for hop in value.split(",")]
    while hops and current in trusted:
        before = _hop(hops.pop())
        if before is None:
            break
        current = before
    return str(current)
