"""The public port before Envoy has it, and the URLs at which other machines reach it."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

from headrace.extras import require
from headrace.rpc.addresses import UNSPECIFIED, join_host_port
from headrace.supervisor.state.failures import PortTaken


def require_free_port(host: str, port: int) -> None:
    """Bind the public port once, because Envoy's own error is less plain.

    Raises:
        PortTaken: it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # As Envoy listens: on :: for IPv6 alone.
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        advice = "choose another with --port, or a free one with --port 0"
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            advice = "this machine does not have that address; choose another with --host"
        raise PortTaken(
            f"cannot listen on {join_host_port(host, port)}: {error.strerror or error}; {advice}"
        ) from error


def external_urls(host: str, port: int, scheme: str = "http") -> list[str]:
    """Return the URLs for other machines if the mesh listens on every address; else none."""
    if host not in UNSPECIFIED:
        return []
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    interfaces = require("mesh", "psutil").net_if_addrs().values()
    found = [
        each.address for addresses in interfaces for each in addresses if each.family == family
    ]
    return [
        f"{scheme}://{join_host_port(address, port)}"
        for address in found
        if "%" not in address and not ip_address(address).is_loopback
    ]
