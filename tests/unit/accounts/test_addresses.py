"""Allow-lists, and whom to believe about where a request came from."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.accounts.addresses import AddressSet, client_address, parse_network

PROXIES = AddressSet(["10.0.0.0/8", "2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("ranges", "address", "allowed"),
    [
        ([], "203.0.113.9", True),
        ([], "", True),
        (["203.0.113.0/24"], "203.0.113.9", True),
        (["203.0.113.0/24"], "203.0.114.9", False),
        (["203.0.113.0/24"], "::ffff:203.0.113.9", True),
        (["::ffff:203.0.113.0/120"], "203.0.113.9", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["2001:db8::/32"], "2001:db8::1", True),
        (["203.0.113.9"], "203.0.113.9", True),
        (["203.0.113.0/24"], "", False),
        (["203.0.113.0/24"], "203.0.113.9, 1.2.3.4", False),
        (["fe80::/10"], "fe80::1%eth0", False),
    ],
)
def test_an_allow_list_holds(ranges: list[str], address: str, allowed: bool) -> None:
    assert AddressSet(ranges).allows(address) is allowed


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "anything", "10.0.0", "fe80::%eth0/64", "1" * 999])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address range|zones"):
        parse_network(text)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["192.0.2.1"], "203.0.113.9"),
        ("10.1.1.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.1.1.1", ["192.0.2.66, 192.0.2.1"], "192.0.2.1"),
        ("10.1.1.1", ["192.0.2.66", "192.0.2.1, 10.2.2.2"], "192.0.2.1"),
        ("10.1.1.1", ["10.9.9.9, 10.2.2.2"], "10.9.9.9"),
        ("10.1.1.1", ["192.0.2.1, nonsense"], "10.1.1.1"),
        ("10.1.1.1", ["192.0.2.1, "], "10.1.1.1"),
        ("10.1.1.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("10.1.1.1", ["[2001:db8::9]:443"], "2001:db8::9"),
        ("10.1.1.1", ["2001:db8::9"], "2001:db8::9"),
        ("2001:db8:1::5", ["192.0.2.1"], "192.0.2.1"),
        ("::ffff:10.1.1.1", ["192.0.2.1"], "192.0.2.1"),
        ("", ["192.0.2.1"], ""),
    ],
)
def test_only_trusted_proxies_are_believed_and_only_about_the_hop_before_them(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert client_address(peer, forwarded, PROXIES) == client


@given(st.lists(st.text(max_size=40), max_size=6))
def test_a_client_that_is_no_proxy_can_say_what_it_likes(forwarded: list[str]) -> None:
    assert client_address("203.0.113.9", forwarded, PROXIES) == "203.0.113.9"


@given(st.lists(st.one_of(st.text(max_size=40), st.ip_addresses().map(str)), max_size=6), st.ip_addresses(v=4))
def test_whatever_a_client_prepends_the_address_that_the_proxy_saw_counts(
    invented: list[str], seen: ipaddress.IPv4Address
) -> None:
    forwarded = [*invented, str(seen)]
    found = client_address("10.1.1.1", forwarded, AddressSet(["10.1.1.1"]))
    assert found == str(seen) or str(seen) == "10.1.1.1"


@given(st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "2001:db8::/32", "2001:db8:1::/48"])))
def test_a_range_exceeds_others_exactly_when_some_address_of_it_does(own: list[str]) -> None:
    mine = AddressSet(own)
    for wanted in ("10.1.0.0/16", "2001:db8:1::/48"):
        network = ipaddress.ip_network(wanted)
        ends = [network[0], network[-1]]
        assert (mine.excess([wanted]) == []) is any(
            all(end in ipaddress.ip_network(range_) for end in ends)
            for range_ in own
            if ipaddress.ip_network(range_).version == network.version
        )
