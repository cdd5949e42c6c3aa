"""What callers may be allowed to do: scopes, the roles of people that mean them, and tenants. Pure.

The scope that a method requires is its option `headrace.v1.access` in the proto.
"""

from __future__ import annotations

from google.protobuf.descriptor import MethodDescriptor

from headrace.v1.access_pb2 import Access, access

DEFAULT_TENANT = "default"
"""The tenant of every caller where no keys are required."""
MESH_TENANT = "headrace"
"""The mesh's own tenant: its administrators operate the mesh and administer every tenant; canaries
run on its behalf."""

GENERATE, EMBED, FILES, BATCHES = "generate", "embed", "files", "batches"
MODELS_READ, USAGE_READ = "models:read", "usage:read"
ADMIN = "admin:*"
SCOPES = (GENERATE, EMBED, FILES, BATCHES, MODELS_READ, USAGE_READ, ADMIN)
USER_SCOPES = SCOPES[:-1]
"""Of keys that use models, as `cli.key` does, and one whose scopes are not named. A key has either
some of these, or `admin:*` alone."""
ADMIN_READS = frozenset({USAGE_READ})
"""What `admin:*` means besides."""
ANY_MODEL = "*"

PUBLIC, SIGNED_IN = "public", "signed-in"
"""Required by methods that anybody may call, and that any valid key or session may call."""

_VIEWER = frozenset({MODELS_READ, USAGE_READ})
_MEMBER = frozenset(USER_SCOPES)
_ADMIN = frozenset(SCOPES)
ROLE_SCOPES = {"viewer": _VIEWER, "member": _MEMBER, "admin": _ADMIN, "owner": _ADMIN}
"""Scopes of a person in a tenant, by role."""


def access_of(method: MethodDescriptor) -> Access | None:
    """Return who may call a method; None if its proto does not say so."""
    options = method.GetOptions()
    return options.Extensions[access] if options.HasExtension(access) else None
