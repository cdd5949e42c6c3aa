"""Batches as OpenAI's API shows them, and the body that creates one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headrace.auth.caller import Caller
from headrace.errors import InvalidRequest, PermissionDenied
from headrace.v1.batches_pb2 import ListBatchesRequest
from headrace_control.base.batches import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    ENDPOINTS,
    EXPIRED,
    FAILED,
    FINALIZING,
    IN_PROGRESS,
    VALIDATING,
    Batch,
    BatchError,
    NewBatch,
    Owner,
    RowUsage,
    check_metadata,
    window_s,
)
from headrace_control.base.files import EXPIRES_AFTER_S

MAX_LISTED, _LISTED = 100, 20
MAX_KEY_CHARACTERS = 255
_TIMES = {
    "in_progress_at": IN_PROGRESS,
    "finalizing_at": FINALIZING,
    "completed_at": COMPLETED,
    "failed_at": FAILED,
    "expired_at": EXPIRED,
    "cancelling_at": CANCELLING,
    "cancelled_at": CANCELLED,
}


class _ExpiresAfter(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    anchor: Literal["created_at"]
    seconds: int = Field(ge=EXPIRES_AFTER_S[0], le=EXPIRES_AFTER_S[1])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    input_file_id: str = Field(min_length=1, max_length=64)
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: _ExpiresAfter | None = None


def new_batch(data: bytes, caller: Caller, *, idempotency_key: str = "") -> NewBatch:
    """Return the batch that a caller requests.

    Raises:
        InvalidRequest: the body is none, or the key is too long.
        PermissionDenied: the caller may not call the endpoint of its rows.
    """
    try:
        body = _Body.model_validate_json(data)
    except ValidationError as invalid:
        raise _refusal(invalid) from None
    if (scope := ENDPOINTS.get(body.endpoint)) is None:
        fact = f"endpoint is {body.endpoint[:80]!r}; it must be one of {', '.join(ENDPOINTS)}"
        raise InvalidRequest(fact, field="endpoint")
    if scope not in caller.scopes:
        raise PermissionDenied(f"rows for {body.endpoint} need the scope {scope} as well")
    window_s(body.completion_window)
    check_metadata(body.metadata or {})
    if len(idempotency_key) > MAX_KEY_CHARACTERS:
        fact = f"the key has {len(idempotency_key)} characters; it may have {MAX_KEY_CHARACTERS}"
        raise InvalidRequest(fact, field="Idempotency-Key")
    expires = body.output_expires_after
    return NewBatch(
        owner=Owner(
            caller.tenant,
            caller.key_id,
            caller.person,
            tuple(sorted(caller.scopes)),
            tuple(sorted(caller.models)),
        ),
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        window=body.completion_window,
        metadata=body.metadata or {},
        output_expires_s=None if expires is None else expires.seconds,
        idempotency_key=idempotency_key,
    )


def _refusal(invalid: ValidationError) -> InvalidRequest:
    first = invalid.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    if not field:
        return InvalidRequest(f"the body is no JSON object: {first['msg']}")
    return InvalidRequest(f"{field}: {first['msg']}", field=field)


def listed(request: ListBatchesRequest) -> int:
    """Return how many batches are listed.

    Raises:
        InvalidRequest: the limit is out of range.
    """
    limit = request.limit if request.HasField("limit") else _LISTED
    if not 1 <= limit <= MAX_LISTED:
        raise InvalidRequest(f"limit is {limit}; it must be 1 to {MAX_LISTED}", field="limit")
    return limit


def batch_object(batch: Batch) -> dict[str, Any]:
    new = batch.new
    times = {
        name: int(batch.times[status].timestamp()) if status in batch.times else None
        for name, status in _TIMES.items()
    }
    return {
        "id": batch.batch_id,
        "object": "batch",
        "endpoint": new.endpoint,
        "errors": _errors(batch.errors) if batch.errors else None,
        "input_file_id": new.input_file_id,
        "completion_window": new.window,
        "status": batch.status,
        "output_file_id": batch.output_file_id if batch.has_output else None,
        "error_file_id": batch.error_file_id if batch.has_errors else None,
        "created_at": int(batch.times[VALIDATING].timestamp()),
        "expires_at": int(batch.expire_time.timestamp()),
        **times,
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "metadata": dict(new.metadata) or None,
        "usage": _usage(batch.usage),
    }


def batch_list(batches: Sequence[Batch], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [batch_object(batch) for batch in batches],
        "first_id": batches[0].batch_id if batches else None,
        "last_id": batches[-1].batch_id if batches else None,
        "has_more": has_more,
    }


def _errors(errors: Sequence[BatchError]) -> dict[str, Any]:
    data = [
        {
            "code": error.code,
            "message": error.message,
            "param": error.param or None,
            "line": error.line or None,
        }
        for error in errors
    ]
    return {"object": "list", "data": data}


def _usage(usage: RowUsage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
