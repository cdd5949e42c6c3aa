"""Addresses of clients, and the networks that they may come from."""

from __future__ import annotations

import pytest

from headrace.auth.networks import client_group, contains, parse_networks


@pytest.mark.parametrize(
    ("networks", "client", "is_in"),
    [
        ([], "192.0.2.7", True),
        ([], "", True),
        (["10.1.0.0/16"], "10.1.2.3", True),
        (["10.1.0.0/16"], "10.2.0.1", False),
        (["10.1.0.0/16", "192.0.2.7"], "192.0.2.7", True),
        (["10.1.0.0/16"], "::ffff:10.1.2.3", True),
        (["2001:db8::/32"], "2001:db8:1::1", True),
        (["2001:db8::/32"], "10.1.2.3", False),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["0.0.0.0/0"], "", False),
        (["0.0.0.0/0"], "10.1.2.3, 10.9.9.9", False),
    ],
)
def test_a_client_is_in_a_list_of_networks_or_not(
    networks: list[str], client: str, is_in: bool
) -> None:
    assert contains(parse_networks(networks), client) is is_in


@pytest.mark.parametrize("text", ["10.1.2.3/16", "10.1.0.0/33", "all", ""])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_networks([text])


def test_the_addresses_of_one_client_are_one_group() -> None:
    assert client_group("2001:db8::1") == client_group("2001:db8::ffff:2")
    assert client_group("2001:db8::1") != client_group("2001:db8:0:1::1")
    assert client_group("::ffff:192.0.2.1") == client_group("192.0.2.1") == "192.0.2.1"
