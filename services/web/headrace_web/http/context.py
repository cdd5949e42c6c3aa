"""A request by HTTP as the check of access reads calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from starlette.requests import Request

from headrace.auth.check.edge import Context
from headrace.rpc.addresses import join_host_port


class _HttpContext:
    def __init__(self, request: Request) -> None:
        self._request = request

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self._request.headers.items()

    def peer(self) -> str:
        client = self._request.client
        if client is None:
            return ""
        family = "ipv6" if ":" in client.host else "ipv4"
        return f"{family}:{join_host_port(client.host, client.port)}"

    def auth_context(self) -> Mapping[str, Any]:
        # Envoy proves itself by the secret.
        return {}


def context_of(request: Request) -> Context:
    """Return what `Access` reads of a request."""
    return cast("Context", _HttpContext(request))
