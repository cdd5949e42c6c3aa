"""What is believed of a call's way: the client's address, and whether a page of ours made it."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc

from headrace.auth.settings import AccessSettings
from headrace.credentials.secret_files import SecretFile
from headrace.rpc.identity import peer_role

CLIENT, SECRET, SAME_ORIGIN = "x-hr-client", "x-hr-edge", "x-hr-same-origin"
HEADERS = frozenset({CLIENT, SECRET, SAME_ORIGIN})
"""Set by Envoy, which removes them from what clients send."""
_PEER = re.compile(r"ipv[46]:(?:\[(?P<six>[^\]]+)\]|(?P<four>[0-9.]+)):\d+")

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end, as far as that is proved."""

    address: str = ""
    """Empty: unknown."""
    same_origin: bool = False
    """A page of this server made the call, so its cookie counts."""


class Edge:
    """Tells calls that came through Envoy from others.

    Envoy proves itself by the secret that it shares with the services of its machine, or by its
    certificate. Headers that others send are those of clients, who may write what they like.
    """

    def __init__(self, settings: AccessSettings) -> None:
        file = settings.edge_secret_file
        self._secret: Callable[[], bytes] = (
            SecretFile(file, bytes).value if file is not None else bytes
        )
        self._has_certificates = settings.tls_ca_file is not None

    def client(self, headers: Mapping[str, str], context: Context) -> Client:
        if self._is_envoy(headers, context):
            return Client(headers.get(CLIENT, ""), headers.get(SAME_ORIGIN) == "1")
        return Client(peer_address(context.peer()))

    def _is_envoy(self, headers: Mapping[str, str], context: Context) -> bool:
        secret, given = self._secret(), headers.get(SECRET, "")
        if secret and given and hmac.compare_digest(secret, given.encode()):
            return True
        return self._has_certificates and peer_role(context) == "envoy"


def peer_address(peer: str) -> str:
    """Return the address of gRPC's name of a peer; empty if it has none.

    >>> peer_address("ipv4:127.0.0.1:5000"), peer_address("ipv6:%5B::1%5D:5000")
    ('127.0.0.1', '::1')
    """
    found = _PEER.fullmatch(unquote(peer))
    return (found["six"] or found["four"]) if found else ""
