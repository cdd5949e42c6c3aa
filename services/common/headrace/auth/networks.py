"""Client addresses, and the networks that a tenant or a key may be used from. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]

_CLIENT_PREFIX = 64
"""Of IPv6: whoever has one address there has them all."""


def parse_networks(texts: Iterable[str]) -> Networks:
    """Return the networks, as of "10.1.0.0/16", "2001:db8::/32" or a single address.

    Raises:
        ValueError: a text is none, or has bits set behind its prefix.
    """
    return tuple(ip_network(text) for text in texts)


def contains(networks: Networks, client: str) -> bool:
    """Return whether a client of this address is in one of the networks.

    No networks are no restriction. A client whose address is unknown is in none.
    """
    if not networks:
        return True
    address = parse_address(client)
    return address is not None and any(address in network for network in networks)


def is_within(network: str, others: Iterable[str]) -> bool:
    """Return whether a network is a part of one of the others.

    >>> is_within("10.1.0.0/16", ["10.0.0.0/8"]), is_within("0.0.0.0/0", ["10.0.0.0/8"])
    (True, False)
    """
    inner = ip_network(network)
    return any(
        inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
        for outer in parse_networks(others)
    )


@lru_cache(maxsize=4096)
def parse_address(client: str) -> Address | None:
    """Return the address; None of what is no address. IPv4 written as IPv6 is IPv4."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def client_group(client: str) -> str:
    """Return what all addresses of one client have in common: of IPv6, the /64.

    >>> client_group("192.0.2.7"), client_group("2001:db8::7"), client_group("")
    ('192.0.2.7', '2001:db8::/64', 'unknown')
    """
    address = parse_address(client)
    if address is None:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, _CLIENT_PREFIX), strict=False))
    return str(address)
