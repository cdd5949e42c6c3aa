"""Which addresses webhooks may be sent to: none inside, unless the operator has listed them. Pure.

The URL is a tenant's, and control stands inside: without this, a tenant could have it send requests
to databases, to metadata services of clouds, or to the mesh itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx

from headrace.auth.networks import Address, Networks, parse_networks
from headrace.errors import InvalidRequest

MAX_URL = 2000
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = parse_networks(
    (
        # Special by IANA, and not to every version of Python.
        *("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20", "5f00::/16"),
        # Azure's metadata. Those of other clouds are link-local or private.
        "168.63.129.16/32",
    )
)


_LOCALHOST: tuple[Address, ...] = (ip_address("127.0.0.1"), ip_address("::1"))


class ForbiddenAddress(Exception):
    """A host has no address that may be sent to."""


def check_url(text: str, allowed: Networks, *, field: str) -> str:
    """Return the URL of an endpoint.

    Raises:
        InvalidRequest: it is none that could be sent to. What its name leads to is seen at each
            delivery only.
    """
    try:
        url = httpx.URL(text) if _is_sane(text) else None
    except (httpx.InvalidURL, ValueError):
        url = None
    if url is None or not url.host or url.scheme not in ("http", "https"):
        raise InvalidRequest(
            f"{field} is no URL like https://example.com/webhooks of at most {MAX_URL} characters",
            field=field,
        )
    if url.userinfo or url.fragment:
        raise InvalidRequest(
            f"{field} has a user, a password or a fragment, which is not sent: the signature proves"
            " the sender",
            field=field,
        )
    address = parse_host(url.host)
    if url.scheme == "http" and not (url.host == "localhost" or _is_loopback(address)):
        raise InvalidRequest(
            f"{field} is of http, which anybody on the way can read: use https", field=field
        )
    certain = _LOCALHOST if url.host == "localhost" else () if address is None else (address,)
    if certain:
        try:
            allowed_of(certain, allowed, is_plain=url.scheme == "http")
        except ForbiddenAddress as error:
            raise InvalidRequest(f"{field}: {error}", field=field) from None
    return text


def _is_sane(text: str) -> bool:
    return len(text) <= MAX_URL and text.isprintable() and " " not in text


def parse_host(host: str) -> Address | None:
    """Return the address that a URL's host is; None if it is a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def allowed_of(
    addresses: Iterable[Address], allowed: Networks, *, is_plain: bool
) -> tuple[Address, ...]:
    """Return those of a host's addresses that may be sent to, in their order, each once.

    Args:
        allowed: networks that may be sent to although they are not public.
        is_plain: without TLS, so to loopback alone.

    Raises:
        ForbiddenAddress: there is none.
    """
    known = tuple(dict.fromkeys(addresses))
    found = tuple(each for each in known if _may_receive(each, allowed, is_plain=is_plain))
    if not found:
        # Why without the address: it would tell a tenant how names inside resolve.
        raise ForbiddenAddress(
            "its host has no address that webhooks may be sent to: private, link-local and loopback"
            " addresses are refused unless control's setting webhook_networks lists them"
            if known
            else "its host has no address"
        )
    return found


def _may_receive(address: Address, allowed: Networks, *, is_plain: bool) -> bool:
    inner = _inner(address)
    if is_plain and not inner.is_loopback:
        return False
    if any(each in network for each in (address, inner) for network in allowed):
        return True
    return is_public(inner)


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet, for one receiver."""
    inner = _inner(address)
    return (
        inner.is_global
        and not (inner.is_multicast or inner.is_reserved or inner.is_unspecified)
        and not (isinstance(inner, IPv6Address) and inner.is_site_local)
        and not any(inner in network for network in _NOT_PUBLIC)
    )


def _inner(address: Address) -> Address:
    """Return the address of IPv4 that one of IPv6 leads to; others as they are."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_loopback(address: Address | None) -> bool:
    return address is not None and _inner(address).is_loopback
