"""Hosts and ports in URLs and gRPC targets, with IPv6 addresses in brackets. Pure but for one.

split_host_port("http://[::1]:8080")   ("::1", 8080)
join_host_port("::1", 8080)            "[::1]:8080"
grpc_target("http://mesh")             "mesh:80"
grpc_target("https://mesh")            "mesh:443"
connect_host("0.0.0.0")                "127.0.0.1"
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

UNSPECIFIED = ("0.0.0.0", "::", "")  # nosec B104: compared with, no default of anything
"""Hosts that mean every address of the machine, and so cannot be connected to."""


class InvalidAddress(ValueError):
    """The text is not an address; the message says why."""


def join_host_port(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address that has none."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def split_host_port(url: str) -> tuple[str, int]:
    """Return host, without brackets, and port of a URL, of `host:port` or of a host.

    Raises:
        InvalidAddress: the port is not a number, or the brackets do not match.
    """
    if _is_ipv6(url):
        return url, 80
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidAddress(f"{url!r} is not an address: {error}") from error
    if host and ":" in host and "[" not in url:
        raise InvalidAddress(
            f"{url!r} is not an address: an IPv6 address needs brackets: [::1]:8080"
        )
    return host or "127.0.0.1", port or (443 if is_https(url) else 80)


def is_https(url: str) -> bool:
    return url.lower().startswith("https://")


def grpc_target(url: str) -> str:
    """Return the gRPC target of a URL or an address.

    Raises:
        InvalidAddress: as `split_host_port`.
    """
    return join_host_port(*split_host_port(url))


def without_zone(host: str) -> str:
    """Return the host.

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
    """Return the host at which this machine reaches what listens on `host`, without brackets."""
    if host == "::":
        return "::1"
    return "127.0.0.1" if host in UNSPECIFIED else host


def own_address_for(host: str, port: int) -> str:
    """Return this machine's address on the route to `host`; the loopback if there is no route.

    Others that reach `host` usually reach this machine there too. Nothing is sent.
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
