"""Translates HeadraceErrors to google.rpc.Status and back, for gRPC and REST."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from headrace.errors import (
    CapacityError,
    Code,
    GatewayUnreachable,
    HeadraceError,
    InternalError,
    QuotaViolation,
    errors_by_reason,
)

DOMAIN = "headrace.dev"
_LIMIT_FIELDS = tuple(field.name for field in fields(QuotaViolation))
"""Keys in the metadata of ErrorInfo."""


def to_status(error: HeadraceError) -> status_pb2.Status:
    """Return the error with ErrorInfo, and with RetryInfo, BadRequest and QuotaFailure where they
    apply."""
    status = status_pb2.Status(code=error.code.number, message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if (limit := error.violation) is not None:
        info.metadata.update({name: str(getattr(limit, name)) for name in _LIMIT_FIELDS})
    status.details.add().Pack(info)
    if limit is not None:
        failed = error_details_pb2.QuotaFailure.Violation(
            subject=limit.subject,
            description=error.message,
            quota_metric=limit.limit,
            quota_value=limit.value,
            quota_dimensions={"model": limit.model} if limit.model else {},
        )
        status.details.add().Pack(error_details_pb2.QuotaFailure(violations=[failed]))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.add().Pack(retry)
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return status


def from_status(status: status_pb2.Status) -> HeadraceError:
    """Return the error that `to_status` was given; for a foreign status, the nearest."""
    info, retry, bad = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.RetryInfo(),
        error_details_pb2.BadRequest(),
    )
    retry_after_s = field = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        else:
            detail.Unpack(info)
    kind = errors_by_reason().get(info.reason) or _by_code(status.code)
    error = kind(status.message, field=field, retry_after_s=retry_after_s)
    error.violation = _violation(info.metadata)
    return error


def _violation(metadata: Mapping[str, str]) -> QuotaViolation | None:
    """Return the limit that an ErrorInfo tells of, if it does."""
    numbers = [metadata.get(name, "") for name in ("value", "used", "requested")]
    if not all(number.isdecimal() for number in numbers):
        return None
    value, used, requested = map(int, numbers)
    return QuotaViolation(
        limit=metadata.get("limit", ""),
        scope=metadata.get("scope", ""),
        subject=metadata.get("subject", ""),
        model=metadata.get("model", ""),
        value=value,
        used=used,
        requested=requested,
    )


def _by_code(number: int) -> type[HeadraceError]:
    if number == Code.UNAVAILABLE.number:
        # A proxy's own, or gRPC's: whatever answers for the mesh says why itself.
        return GatewayUnreachable
    for kind in errors_by_reason().values():
        if kind.code.number == number:
            return kind
    return InternalError


def from_rpc_error(error: grpc.aio.AioRpcError) -> HeadraceError:
    """Return the error of a failed call, with its details if it has any."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has all it reads
    if status is None:
        code = error.code().value[0]
        status = status_pb2.Status(code=code, message=error.details() or error.code().name)
    return from_status(status)


def can_be_resumed(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a call was lost on its way, or rejected for want of capacity."""
    if rpc_status.from_call(error) is None:  # type: ignore[arg-type]  # as above
        return error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
    return isinstance(from_rpc_error(error), CapacityError)


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    error: HeadraceError,
    details: Iterable[Message] = (),
) -> NoReturn:
    """End a call with the error's status, and with more details of it."""
    status = to_status(error)
    for detail in details:
        status.details.add().Pack(detail)
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status returned")


def grpc_code(code: Code) -> grpc.StatusCode:
    return grpc.StatusCode[code.name]
