"""Who the processes of a mesh are, as their certificates say it. Pure but for one.

A process of role `worker` with the name `one` has spiffe://headrace/worker/one; a server of role
`gateway` also has the DNS name gateway.headrace.internal, which its clients check in place of its
address: addresses change, and what matters is that it is a gateway.
"""

from __future__ import annotations

from typing import Any

import grpc

PREFIX = "spiffe://headrace/"
PUBLIC = "public"
"""Not a role: what the public listener of a mesh is named in its certificate."""
ROLES = frozenset({"gateway", "scheduler", "worker", "control", "web", "envoy", "nats", "operator"})


def spiffe_id(role: str, name: str) -> str:
    return f"{PREFIX}{role}/{name}"


def server_name(role: str) -> str:
    """Return the DNS name that every server of the role has in its certificate."""
    return f"{role}.headrace.internal"


def role_of(uri: str) -> str | None:
    """Return the role that a certificate with this name proves; None if it proves none."""
    role, slash, name = uri.removeprefix(PREFIX).partition("/")
    return role if uri.startswith(PREFIX) and slash and name and role in ROLES else None


def peer_role(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Return the role that the peer of a call has proved; None if the line is not encrypted.

    gRPC has checked by then that the mesh's authority has signed its certificate.
    """
    found = context.auth_context().get("peer_spiffe_id", ())
    return role_of(next(iter(found), b"").decode("utf-8", "replace"))
