"""Which addresses may be connected to: every private one is refused, however it is dressed up."""

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.addresses import AddressGuard, AddressRefused, is_public

_V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
_V6 = st.integers(0, 2**128 - 1).map(IPv6Address)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1", "168.63.129.16",
        "::", "::1", "::127.0.0.1", "::10.0.0.1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:168.63.129.16", "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1", "100::1",
        "4000::1",
    ],
)  # fmt: skip
def test_what_is_not_on_the_internet_is_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["1.1.1.1", "203.0.114.7", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:808:808::"],
)
def test_what_is_on_the_internet_is_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@given(_V4)
def test_an_ipv4_address_is_as_public_in_every_dress(ip: IPv4Address) -> None:
    number = int(ip)
    dressed = [
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(number),
        IPv6Address((0x0064FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80)),
    ]
    assert {is_public(one) for one in dressed} == {is_public(ip)}


@given(_V4)
def test_no_private_reserved_or_local_ipv4_address_is_public(ip: IPv4Address) -> None:
    local = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_reserved
    assert not (is_public(ip) and (local or ip.is_unspecified))


@given(_V6)
def test_no_private_reserved_or_local_ipv6_address_is_public(ip: IPv6Address) -> None:
    local = ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_site_local or ip.is_unspecified
    assert not (is_public(ip) and (local or ip in ipaddress.IPv6Network("fc00::/7")))


def test_an_allowed_network_or_host_passes_and_nothing_beside_it() -> None:
    guard = AddressGuard(["10.1.0.0/16", "Hooks.Internal.", "fd00::/8"])
    assert guard.permits("any", "10.1.2.3")
    assert guard.permits("any", "fd00::1%eth0")
    assert guard.permits("hooks.internal", "192.168.0.9")
    assert not guard.permits("any", "10.2.0.1")
    assert not guard.permits("evil.hooks.internal", "192.168.0.9")
    assert (guard.allows("HOOKS.internal"), guard.allows("10.1.9.9"), guard.allows("other")) == (True, True, False)


async def test_a_host_with_one_bad_address_among_good_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(host: str, port: int, family: int, kind: int) -> list[object]:
        return [(socket.AF_INET, kind, 6, "", (address, port)) for address in ("203.0.114.7", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with pytest.raises(AddressRefused) as refused:
        await AddressGuard().addresses("rebinding.example", 443)
    assert "127.0.0.1" not in str(refused.value)
