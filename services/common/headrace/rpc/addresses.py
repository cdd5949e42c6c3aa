"""Hosts and ports as URLs and gRPC targets write them: IPv6 addresses stand in brackets."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

UNSPECIFIED = ("0.0.0.0", "::", "")
"""A process that listens on one of these listens on every address, and has no address itself."""


class InvalidAddress(ValueError):
    """The text is no address; the message says what is wrong with it."""


def join_host_port(host: str, port: int) -> str:
    """`host:port`, as URLs and gRPC targets take it. Brackets that are there stay."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def split_host_port(url: str) -> tuple[str, int]:
    """Host, without brackets, and port of an http URL; `host:port` or a host alone is taken too.

    Raises:
        InvalidAddress: the port is no port, or the brackets are not in pairs.
    """
    if _is_ipv6(url):
        return url, 80
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidAddress(f"{url!r} is no address: {error}") from error
    if host and ":" in host and "[" not in url:
        raise InvalidAddress(
            f"{url!r} is no address: an IPv6 address stands in brackets: [::1]:8080"
        )
    return host or "127.0.0.1", port or 80


def grpc_target(url: str) -> str:
    """What gRPC connects to, of an http URL or an address.

    Raises:
        InvalidAddress: as `split_host_port`.
    """
    return join_host_port(*split_host_port(url))


def without_zone(host: str) -> str:
    """The host itself.

    Raises:
        InvalidAddress: it has a zone, as fe80::1%eth0 has, which means nothing on other machines.
    """
    if "%" in host:
        raise InvalidAddress(
            f"{host!r} has a zone ({host.partition('%')[2]}), which other machines cannot use and "
            "URLs cannot hold; use an address that is not link-local"
        )
    return host


def connect_host(host: str) -> str:
    """Where a process of this machine finds what listens on `host`, without brackets."""
    if host == "::":
        return "::1"
    return "127.0.0.1" if host in UNSPECIFIED else host


def own_address_for(host: str, port: int) -> str:
    """The address under which this machine sends to `host`: others that reach `host` reach us
    there too. Nothing is sent. Where there is no way to `host`, the loopback.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False
