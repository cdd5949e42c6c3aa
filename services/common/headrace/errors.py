"""Everything that Headrace rejects a request with or fails it with, as callers see it.

HeadraceError
├── RequestError            the caller must change something
│   ├── InvalidRequest          INVALID_ARGUMENT    INVALID_REQUEST
│   │   ├── ContextLengthExceeded                   CONTEXT_LENGTH_EXCEEDED
│   │   ├── InvalidStructure                        INVALID_STRUCTURE
│   ├── Unsupported             UNIMPLEMENTED       UNSUPPORTED
│   ├── ModelNotFound           NOT_FOUND           MODEL_NOT_FOUND
│   ├── RequestNotFound         NOT_FOUND           REQUEST_NOT_FOUND
│   └── RequestExists           ALREADY_EXISTS      REQUEST_EXISTS
├── CapacityError           nothing was queued; retry after `retry_after_s`
│   ├── LaneFull                RESOURCE_EXHAUSTED  LANE_FULL
│   ├── PatienceExhausted       RESOURCE_EXHAUSTED  PATIENCE_EXHAUSTED
│   ├── NoWorker                UNAVAILABLE         NO_WORKER
│   ├── BrokerUnavailable       UNAVAILABLE         BROKER_UNAVAILABLE
│   ├── GatewayDraining         UNAVAILABLE         GATEWAY_DRAINING
│   └── GatewayUnreachable      UNAVAILABLE         GATEWAY_UNREACHABLE
├── DeadlineExceeded            DEADLINE_EXCEEDED   DEADLINE_EXCEEDED
├── RequestCancelled            CANCELLED           CANCELLED
│   └── SlowReader                                  SLOW_READER
└── InternalError           a fault of Headrace
    ├── AttemptsExhausted       INTERNAL            ATTEMPTS_EXHAUSTED
    └── EngineFailed            INTERNAL            ENGINE_FAILED

This is the only table of errors: REST and gRPC both return them, and `headrace.rpc.status`
translates them to google.rpc.Status and back.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

__all__ = [
    "AttemptsExhausted",
    "BrokerUnavailable",
    "CapacityError",
    "Code",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "EngineFailed",
    "GatewayDraining",
    "GatewayUnreachable",
    "HeadraceError",
    "InternalError",
    "InvalidRequest",
    "InvalidStructure",
    "LaneFull",
    "ModelNotFound",
    "NoWorker",
    "PatienceExhausted",
    "RequestCancelled",
    "RequestError",
    "RequestExists",
    "RequestNotFound",
    "SlowReader",
    "Unsupported",
    "errors_by_reason",
]


class Code(Enum):
    """google.rpc.Code by number, with the HTTP status that Envoy's transcoder gives it."""

    CANCELLED = (1, 499)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    ALREADY_EXISTS = (6, 409)
    RESOURCE_EXHAUSTED = (8, 429)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)

    def __init__(self, number: int, http_status: int) -> None:
        self.number = number
        self.http_status = http_status


class HeadraceError(Exception):
    """Base of all errors that callers get. The message states the fact with its numbers."""

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    """Its name in headrace.v1.ErrorReason, without the prefix."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        """Path of the invalid field, as the caller wrote it: `messages[0].role`."""
        self.retry_after_s = retry_after_s


class RequestError(HeadraceError):
    """The caller must change the request; the same one would fail again."""


class InvalidRequest(RequestError):
    """A field is missing, unknown, of the wrong type or out of range."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class ContextLengthExceeded(InvalidRequest):
    """The prompt, or the prompt with `max_tokens`, exceeds the model's context."""

    reason = "CONTEXT_LENGTH_EXCEEDED"


class InvalidStructure(InvalidRequest):
    """The schema or grammar of the output is invalid, too large, or cannot be enforced."""

    reason = "INVALID_STRUCTURE"


class Unsupported(RequestError):
    """A known field or value that this version or this model does not support."""

    code = Code.UNIMPLEMENTED
    reason = "UNSUPPORTED"


class ModelNotFound(RequestError):
    """No model of this name is configured."""

    code = Code.NOT_FOUND
    reason = "MODEL_NOT_FOUND"


class RequestNotFound(RequestError):
    """The request is not running, and no stored result exists."""

    code = Code.NOT_FOUND
    reason = "REQUEST_NOT_FOUND"


class RequestExists(RequestError):
    """Another request has this id."""

    code = Code.ALREADY_EXISTS
    reason = "REQUEST_EXISTS"


class CapacityError(HeadraceError):
    """Nothing was queued; the same request may succeed after `retry_after_s`."""

    code = Code.UNAVAILABLE


class LaneFull(CapacityError):
    """The lane is at its bound."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "LANE_FULL"


class PatienceExhausted(CapacityError):
    """The request waited in its lane for as long as its `patience`."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "PATIENCE_EXHAUSTED"


class NoWorker(CapacityError):
    """The model is known, but no worker served it in time."""

    reason = "NO_WORKER"


class BrokerUnavailable(CapacityError):
    """NATS cannot be reached."""

    reason = "BROKER_UNAVAILABLE"


class GatewayDraining(CapacityError):
    """This gateway is shutting down; another one accepts the request."""

    reason = "GATEWAY_DRAINING"


class GatewayUnreachable(CapacityError):
    """The gateway that has the request cannot be reached, or is not known yet."""

    reason = "GATEWAY_UNREACHABLE"


class DeadlineExceeded(HeadraceError):
    """The request's deadline passed while it waited or ran."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class RequestCancelled(HeadraceError):
    """The request was cancelled."""

    code = Code.CANCELLED
    reason = "CANCELLED"


class SlowReader(RequestCancelled):
    """The caller did not read the stream for too long; the request was cancelled."""

    reason = "SLOW_READER"


class InternalError(HeadraceError):
    """A fault of Headrace; the caller can only retry."""


class AttemptsExhausted(InternalError):
    """The request failed on every attempt; it is stored as a dead letter."""

    reason = "ATTEMPTS_EXHAUSTED"


class EngineFailed(InternalError):
    """The engine could not compute the output."""

    reason = "ENGINE_FAILED"


def errors_by_reason(root: type[HeadraceError] = HeadraceError) -> dict[str, type[HeadraceError]]:
    """Return the error classes below `root`, and `root` itself, by their reasons."""
    found = {root.reason: root} if "reason" in vars(root) else {}
    for child in root.__subclasses__():
        found |= errors_by_reason(child)
    return found
