"""The secret that workers and gateways show where they call a gateway's port for the mesh.

It is for lines without certificates: any process of the machine reaches a loopback port. Over
mutual TLS the peer's role is the proof already; see `headrace.rpc.roles`.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
from pydantic import field_validator

from headrace.credentials.secret_files import RECHECK_S, SecretFile
from headrace.rpc.guards import guarded, service_of
from headrace.settings import ServiceSettings

HEADER = "x-hr-delivery"
_OPEN_SERVICES = frozenset({"grpc.health.v1.Health"})

Metadata = tuple[tuple[str, str], ...]


class DeliverySecret:
    """The content of a file, which is read again when the file has changed.

    Raises:
        InsecureSecretFile: the file cannot be read, others than its owner may read it, or it
            holds no single line of printable ASCII.
    """

    def __init__(self, file: Path | None, *, recheck_s: float = RECHECK_S) -> None:
        """`file`: None shows no secret, and requires none."""
        self._file = SecretFile(file, _line, recheck_s=recheck_s) if file is not None else None

    def metadata(self) -> Metadata:
        """Return what proves a call that is made now."""
        return () if self._file is None else ((HEADER, self._file.value()),)

    def is_shown_in(self, metadata: Any) -> bool:
        """Return whether a call with this metadata is proved, or need not be."""
        if self._file is None:
            return True
        secret = self._file.value().encode()
        shown = [_bytes(value) for key, value in metadata or () if key == HEADER]
        return len(shown) == 1 and hmac.compare_digest(secret, shown[0])


class DeliverySettings(ServiceSettings):
    """What the settings of gateways and of workers derive from."""

    delivery_secret_file: Path | None = None
    """File of the secret by which workers and other gateways prove themselves at a gateway's
    `delivery_port`: one line, the same for all gateways and workers of a mesh. A gateway that has
    it refuses calls there without it. Without the file, and without TLS, whoever reaches the port
    may read and write answers of requests whose ids are known. Only its owner may read it; a
    changed file is read again."""

    @field_validator("delivery_secret_file")
    @classmethod
    def _can_be_read(cls, file: Path | None) -> Path | None:
        DeliverySecret(file)
        return file

    @cached_property
    def delivery_secret(self) -> DeliverySecret:
        return DeliverySecret(self.delivery_secret_file)


class RequireDeliverySecret(grpc.aio.ServerInterceptor):
    """Refuses calls that do not show the secret; health may be asked without it."""

    def __init__(self, secret: DeliverySecret) -> None:
        self._secret = secret

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = await continuation(handler_call_details)
        if found is None or service_of(handler_call_details) in _OPEN_SERVICES:
            return found
        return guarded(found, self._check)

    async def _check(self, context: Any) -> None:
        if not self._secret.is_shown_in(context.invocation_metadata()):
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                f"the call shows no valid secret in {HEADER}; workers and gateways of a mesh need"
                " the same delivery_secret_file",
            )


def _line(content: bytes) -> str:
    # Why so strict: gRPC sends no other text, and would fail at every call.
    if not content.isascii() or not (line := content.decode()).isprintable():
        raise ValueError("it must hold one line of printable ASCII characters")
    return line


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
