"""Webhooks go to public addresses alone, unless the operator has listed others."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.auth.networks import parse_networks
from headrace.errors import InvalidRequest
from headrace_control.webhooks.addresses import (
    ForbiddenAddress,
    allowed_of,
    check_url,
    is_public,
)

INSIDE = (
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
    *("192.168.1.1", "100.64.0.1", "100.100.100.200", "169.254.169.254", "168.63.129.16"),
    *("192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1"),
    *("64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:a00:1::", "2002:7f00:1::1", "2001:db8::1"),
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
)
OUTSIDE = ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8")


@pytest.mark.parametrize("text", INSIDE)
def test_no_address_inside_may_be_sent_to(text: str) -> None:
    assert not is_public(ip_address(text))
    with pytest.raises(ForbiddenAddress, match="webhook_networks"):
        allowed_of([ip_address(text)], (), is_plain=False)


@pytest.mark.parametrize("text", OUTSIDE)
def test_public_addresses_may_be_sent_to_by_https_alone(text: str) -> None:
    address = ip_address(text)
    assert allowed_of([address], (), is_plain=False) == (address,)
    with pytest.raises(ForbiddenAddress):
        allowed_of([address], parse_networks(["0.0.0.0/0", "::/0"]), is_plain=True)


@given(st.ip_addresses(v=4))
def test_an_address_of_ipv4_is_judged_alike_however_it_is_written(address: IPv4Address) -> None:
    mapped = IPv6Address(f"::ffff:{address}")
    through = IPv6Address(int(IPv6Address("64:ff9b::")) | int(address))
    assert is_public(mapped) == is_public(through) == is_public(address)


def test_what_the_operator_lists_may_be_sent_to() -> None:
    networks = parse_networks(["10.20.0.0/16", "127.0.0.0/8"])
    listed, other = ip_address("10.20.1.1"), ip_address("10.21.1.1")
    assert allowed_of([other, listed], networks, is_plain=False) == (listed,)
    mapped = ip_address("::ffff:10.20.1.1")
    assert allowed_of([mapped], networks, is_plain=False) == (mapped,)
    # Without TLS only loopback, and only if it is listed.
    assert allowed_of([ip_address("127.0.0.1")], networks, is_plain=True)
    with pytest.raises(ForbiddenAddress):
        allowed_of([listed], networks, is_plain=True)


def test_of_a_mixed_answer_only_public_addresses_are_used() -> None:
    mixed = [ip_address("10.0.0.1"), ip_address("8.8.8.8"), ip_address("8.8.8.8")]
    assert allowed_of(mixed, (), is_plain=False) == (ip_address("8.8.8.8"),)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hooks",
        "ftp://example.com/",
        "https://",
        "http://example.com/",
        "https://user:word@example.com/",
        "https://example.com/#part",
        "https://example.com/\n",
        "https://example.com/" + "x" * 2000,
        "https://10.0.0.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fd00::1]/",
        "http://127.0.0.1:8000/",
        "http://localhost:8000/",
        "https://localhost/",
        "https://169.254.169.254/latest/meta-data",
        "https://exa mple.com/",
    ],
)
def test_a_url_that_could_never_be_sent_to_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_url(url, (), field="url")
    assert refused.value.field == "url"


def test_other_urls_are_taken_as_they_are() -> None:
    loopback = parse_networks(["127.0.0.0/8"])
    for url in ("https://example.com/hooks?for=acme", "https://8.8.8.8:8443/"):
        assert check_url(url, (), field="url") == url
    assert check_url("http://127.0.0.1:8000/", loopback, field="url")
    assert check_url("http://localhost:8000/", loopback, field="url")
    assert check_url("https://name.inside/", (), field="url")  # seen when it is resolved
