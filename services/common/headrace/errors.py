"""Everything that Headrace rejects a request with or fails it with, as callers see it.

HeadraceError
├── RequestError            the caller must change something
│   ├── InvalidRequest          INVALID_ARGUMENT    INVALID_REQUEST
│   │   ├── ContextLengthExceeded                   CONTEXT_LENGTH_EXCEEDED
│   │   ├── InvalidStructure                        INVALID_STRUCTURE
│   │   └── BodyTooLarge                            BODY_TOO_LARGE
│   ├── Unsupported             UNIMPLEMENTED       UNSUPPORTED
│   ├── NotFound                NOT_FOUND
│   │   ├── ModelNotFound                           MODEL_NOT_FOUND
│   │   ├── RequestNotFound                         REQUEST_NOT_FOUND
│   │   └── ResourceNotFound                        RESOURCE_NOT_FOUND
│   ├── RequestExists           ALREADY_EXISTS      REQUEST_EXISTS
│   ├── InvalidApiKey           UNAUTHENTICATED     INVALID_API_KEY
│   │   └── TooManyFailedAttempts RESOURCE_EXHAUSTED TOO_MANY_FAILED_ATTEMPTS
│   ├── PermissionDenied        PERMISSION_DENIED   PERMISSION_DENIED
│   ├── ResourceExists          ALREADY_EXISTS      RESOURCE_EXISTS
│   ├── InsufficientQuota       RESOURCE_EXHAUSTED  INSUFFICIENT_QUOTA
│   └── FailedPrecondition      FAILED_PRECONDITION FAILED_PRECONDITION
├── CapacityError           nothing was queued; retry after `retry_after_s`
│   ├── LaneFull                RESOURCE_EXHAUSTED  LANE_FULL
│   ├── PatienceExhausted       RESOURCE_EXHAUSTED  PATIENCE_EXHAUSTED
│   ├── RateLimitExceeded       RESOURCE_EXHAUSTED  RATE_LIMIT_EXCEEDED
│   ├── QuotaUnavailable        UNAVAILABLE         QUOTA_UNAVAILABLE
│   ├── NoWorker                UNAVAILABLE         NO_WORKER
│   ├── BrokerUnavailable       UNAVAILABLE         BROKER_UNAVAILABLE
│   ├── GatewayDraining         UNAVAILABLE         GATEWAY_DRAINING
│   ├── GatewayUnreachable      UNAVAILABLE         GATEWAY_UNREACHABLE
│   └── ControlUnavailable      UNAVAILABLE         CONTROL_UNAVAILABLE
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

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


class Code(Enum):
    """google.rpc.Code by number, with the HTTP status that Envoy's transcoder gives it."""

    CANCELLED = (1, 499)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    ALREADY_EXISTS = (6, 409)
    PERMISSION_DENIED = (7, 403)
    RESOURCE_EXHAUSTED = (8, 429)
    FAILED_PRECONDITION = (9, 400)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    UNAUTHENTICATED = (16, 401)

    def __init__(self, number: int, http_status: int) -> None:
        self.number = number
        self.http_status = http_status


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """The limit that refused a request."""

    limit: str
    """By its name in limits: `tokens_per_minute`."""
    scope: str
    """tenant, key, model (of the tenant, for one model) or key_model."""
    subject: str
    """Whose limit it is: tenants/{tenant} or tenants/{tenant}/keys/{key}."""
    model: str
    """The one model that it is for; empty: all."""
    value: int
    """The limit itself, as the next two: requests, tokens, or nano-units of a currency."""
    used: int
    requested: int


class HeadraceError(Exception):
    """Base of all errors that callers get. The message states the fact with its numbers."""

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    """Its name in headrace.v1.ErrorReason, without the prefix."""

    def __init_subclass__(cls, *, code: Code | None = None, reason: str | None = None) -> None:
        """Take `code` and `reason` from the class statement; what it leaves out is inherited."""
        if code is not None:
            cls.code = code
        if reason is not None:
            cls.reason = reason

    def __init__(
        self, message: str, *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        """Path of the invalid field, as the caller wrote it: `messages[0].role`."""
        self.retry_after_s = retry_after_s
        self.request_id = ""
        """Of the request that it is about, where a client knows it."""
        self.violation: QuotaViolation | None = None
        """The limit, where one has refused the request."""


class RequestError(HeadraceError):
    """The caller must change the request; the same one would fail again."""


class InvalidRequest(RequestError, code=Code.INVALID_ARGUMENT, reason="INVALID_REQUEST"):
    """A field is missing, unknown, of the wrong type or out of range."""


class ContextLengthExceeded(InvalidRequest, reason="CONTEXT_LENGTH_EXCEEDED"):
    """The prompt, or the prompt with `max_tokens`, exceeds the model's context."""


class BodyTooLarge(InvalidRequest, reason="BODY_TOO_LARGE"):
    """The body is larger than the call may have. HTTP answers it with 413."""


class InvalidStructure(InvalidRequest, reason="INVALID_STRUCTURE"):
    """The schema or grammar of the output is invalid, too large, or cannot be enforced."""


class Unsupported(RequestError, code=Code.UNIMPLEMENTED, reason="UNSUPPORTED"):
    """A known field or value that this version or this model does not support."""


class NotFound(RequestError, code=Code.NOT_FOUND):
    """What the request names does not exist, or the caller may not see it."""


class ModelNotFound(NotFound, reason="MODEL_NOT_FOUND"):
    """No model of this name is configured."""


class RequestNotFound(NotFound, reason="REQUEST_NOT_FOUND"):
    """The request is not running, and no stored result exists."""


class RequestExists(RequestError, code=Code.ALREADY_EXISTS, reason="REQUEST_EXISTS"):
    """Another request has this id."""


class InvalidApiKey(RequestError, code=Code.UNAUTHENTICATED, reason="INVALID_API_KEY"):
    """The call has no key or session, or one that is not valid; the message does not say why."""


class TooManyFailedAttempts(
    InvalidApiKey, code=Code.RESOURCE_EXHAUSTED, reason="TOO_MANY_FAILED_ATTEMPTS"
):
    """Too many calls without a valid key came from this address lately."""


class PermissionDenied(RequestError, code=Code.PERMISSION_DENIED, reason="PERMISSION_DENIED"):
    """The caller is known and may not do this: a scope is missing, or the network is not listed."""


class ResourceNotFound(NotFound, reason="RESOURCE_NOT_FOUND"):
    """No such tenant, key, person and so on exists that the caller may see."""


class ResourceExists(RequestError, code=Code.ALREADY_EXISTS, reason="RESOURCE_EXISTS"):
    """Another resource has this id."""


class FailedPrecondition(RequestError, code=Code.FAILED_PRECONDITION, reason="FAILED_PRECONDITION"):
    """Something else has to be done first; the message says what."""


class CapacityError(HeadraceError, code=Code.UNAVAILABLE):
    """Nothing was queued; the same request may succeed after `retry_after_s`."""


class LaneFull(CapacityError, code=Code.RESOURCE_EXHAUSTED, reason="LANE_FULL"):
    """The lane is at its bound."""


class PatienceExhausted(CapacityError, code=Code.RESOURCE_EXHAUSTED, reason="PATIENCE_EXHAUSTED"):
    """The request waited in its lane for as long as its `patience`."""


class RateLimitExceeded(CapacityError, code=Code.RESOURCE_EXHAUSTED, reason="RATE_LIMIT_EXCEEDED"):
    """A limit of a minute, or of requests under way, is reached; nothing was charged."""


class InsufficientQuota(RequestError, code=Code.RESOURCE_EXHAUSTED, reason="INSUFFICIENT_QUOTA"):
    """A limit of a day or a budget is used up, or the request alone exceeds a limit: to send it
    again at once does not help."""


class QuotaUnavailable(CapacityError, reason="QUOTA_UNAVAILABLE"):
    """The quota keeper does not answer, or usage cannot be stored, and the tenant has limits."""


class NoWorker(CapacityError, reason="NO_WORKER"):
    """The model is known, but no worker served it in time."""


class BrokerUnavailable(CapacityError, reason="BROKER_UNAVAILABLE"):
    """NATS cannot be reached."""


class GatewayDraining(CapacityError, reason="GATEWAY_DRAINING"):
    """This gateway is shutting down; another one accepts the request."""


class GatewayUnreachable(CapacityError, reason="GATEWAY_UNREACHABLE"):
    """The gateway that has the request cannot be reached, or is not known yet."""


class ControlUnavailable(CapacityError, reason="CONTROL_UNAVAILABLE"):
    """Nothing can be administered now: control, its broker or its database cannot be reached."""


class DeadlineExceeded(HeadraceError, code=Code.DEADLINE_EXCEEDED, reason="DEADLINE_EXCEEDED"):
    """The request's deadline passed while it waited or ran."""


class RequestCancelled(HeadraceError, code=Code.CANCELLED, reason="CANCELLED"):
    """The request was cancelled."""


class SlowReader(RequestCancelled, reason="SLOW_READER"):
    """The caller did not read the stream for too long; the request was cancelled."""


class InternalError(HeadraceError, reason="INTERNAL"):
    """A fault of Headrace; the caller can only retry."""


class AttemptsExhausted(InternalError, reason="ATTEMPTS_EXHAUSTED"):
    """The request failed on every attempt; it is stored as a dead letter."""


class EngineFailed(InternalError, reason="ENGINE_FAILED"):
    """The engine could not compute the output."""


def errors_by_reason(root: type[HeadraceError] = HeadraceError) -> dict[str, type[HeadraceError]]:
    """Return the error classes below `root`, and `root` itself, by their reasons."""
    found = {root.reason: root} if "reason" in vars(root) else {}
    for child in root.__subclasses__():
        found |= errors_by_reason(child)
    return found
