"""Everything that Headrace refuses or fails with, and what each means to a caller.

HeadraceError
├── RequestError            the caller must change something
│   ├── InvalidRequest          INVALID_ARGUMENT    INVALID_REQUEST
│   │   ├── ContextLengthExceeded                   CONTEXT_LENGTH_EXCEEDED
│   │   ├── InvalidStructure                        INVALID_STRUCTURE
│   ├── Unsupported             UNIMPLEMENTED       UNSUPPORTED
│   ├── ModelNotFound           NOT_FOUND           MODEL_NOT_FOUND
│   ├── RequestNotFound         NOT_FOUND           REQUEST_NOT_FOUND
│   └── RequestExists           ALREADY_EXISTS      REQUEST_EXISTS
├── CapacityError           nothing was queued; come back after `retry_after_s`
│   ├── LaneFull                RESOURCE_EXHAUSTED  LANE_FULL
│   ├── PatienceExhausted       RESOURCE_EXHAUSTED  PATIENCE_EXHAUSTED
│   ├── NoWorker                UNAVAILABLE         NO_WORKER
│   ├── BrokerUnavailable       UNAVAILABLE         BROKER_UNAVAILABLE
│   ├── GatewayDraining         UNAVAILABLE         GATEWAY_DRAINING
│   └── GatewayUnreachable      UNAVAILABLE         GATEWAY_UNREACHABLE
├── DeadlineExceeded              DEADLINE_EXCEEDED   DEADLINE_EXCEEDED
├── RequestCancelled            CANCELLED           CANCELLED
│   └── SlowReader                                  SLOW_READER
└── InternalError           ours to mend
    ├── AttemptsExhausted       INTERNAL            ATTEMPTS_EXHAUSTED
    └── EngineFailed            INTERNAL            ENGINE_FAILED

This is the only error table: both doors, REST and gRPC, print it, and
`headrace.rpc.status` turns it into google.rpc.Status and back.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


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
    """Base of all that is told to a caller. The message states the fact with its numbers."""

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    """Name in headrace.v1.ErrorReason without its prefix."""

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
        """Path of the field at fault, as the caller wrote it: `messages[0].role`."""
        self.retry_after_s = retry_after_s


class RequestError(HeadraceError):
    """The caller must change something; the same request will fail again."""


class InvalidRequest(RequestError):
    """A field is missing, unknown, of a wrong type or out of its range."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class ContextLengthExceeded(InvalidRequest):
    """The prompt, or prompt and wanted output, do not fit the model's context."""

    reason = "CONTEXT_LENGTH_EXCEEDED"


class InvalidStructure(InvalidRequest):
    """The wanted structure of the output is none, is too large, or cannot be enforced."""

    reason = "INVALID_STRUCTURE"


class Unsupported(RequestError):
    """A known field or value that this version does not serve."""

    code = Code.UNIMPLEMENTED
    reason = "UNSUPPORTED"


class ModelNotFound(RequestError):
    """No model of this name is configured, or not any more."""

    code = Code.NOT_FOUND
    reason = "MODEL_NOT_FOUND"


class RequestNotFound(RequestError):
    """No such request, or it ended longer ago than results are kept."""

    code = Code.NOT_FOUND
    reason = "REQUEST_NOT_FOUND"


class RequestExists(RequestError):
    """Another request with this id is open."""

    code = Code.ALREADY_EXISTS
    reason = "REQUEST_EXISTS"


class CapacityError(HeadraceError):
    """Not now. Nothing is queued; the same request may succeed after `retry_after_s`."""

    code = Code.UNAVAILABLE


class LaneFull(CapacityError):
    """The lane is at its bound."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "LANE_FULL"


class PatienceExhausted(CapacityError):
    """It waited in its lane for as long as its patience."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "PATIENCE_EXHAUSTED"


class NoWorker(CapacityError):
    """The model is known, but no worker served it in time."""

    reason = "NO_WORKER"


class BrokerUnavailable(CapacityError):
    """NATS could not be reached."""

    reason = "BROKER_UNAVAILABLE"


class GatewayDraining(CapacityError):
    """This gateway is shutting down; another will answer."""

    reason = "GATEWAY_DRAINING"


class GatewayUnreachable(CapacityError):
    """The gateway that has the request cannot be reached, or nobody knows yet which has it."""

    reason = "GATEWAY_UNREACHABLE"


class DeadlineExceeded(HeadraceError):
    """The request's time ran out, waiting or running."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class RequestCancelled(HeadraceError):
    """Somebody cancelled it."""

    code = Code.CANCELLED
    reason = "CANCELLED"


class SlowReader(RequestCancelled):
    """Its caller took nothing of what was written to it for too long, and was cut."""

    reason = "SLOW_READER"


class InternalError(HeadraceError):
    """A fault of ours; the caller can do nothing but try again."""


class AttemptsExhausted(InternalError):
    """It failed on every attempt, and is kept in the dead-letter stream."""

    reason = "ATTEMPTS_EXHAUSTED"


class EngineFailed(InternalError):
    """The engine could not compute it."""

    reason = "ENGINE_FAILED"


def errors_by_reason(root: type[HeadraceError] = HeadraceError) -> dict[str, type[HeadraceError]]:
    """Every error class of the tree by its reason."""
    found = {root.reason: root} if "reason" in vars(root) else {}
    for child in root.__subclasses__():
        found |= errors_by_reason(child)
    return found
