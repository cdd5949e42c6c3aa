"""The state machine's interface: events that it applies, commands that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.errors import Code, HeadraceError
from headrace.internal.v1.dispatch_pb2 import DispatchRefusal, DispatchRequest
from headrace.internal.v1.reports_pb2 import (
    GatewayReport,
    LocateRequest,
    LostRequest,
    ParkRequest,
    PrefixReport,
    ResumePoint,
    SettleRequest,
    WorkerReport,
)
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.internal.v1.usage_pb2 import UsageRecord
from headrace_scheduler.request.live_request import Request

# Events


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request was read from its lane."""

    request: Request


@dataclass(frozen=True, slots=True)
class LaneCaughtUp:
    """A lane was read to its end for the first time."""

    priority: str


@dataclass(frozen=True, slots=True)
class WorkerReported:
    report: WorkerReport
    received_s: float


@dataclass(frozen=True, slots=True)
class PrefixesReported:
    report: PrefixReport


@dataclass(frozen=True, slots=True)
class GatewayReported:
    report: GatewayReport
    received_s: float


@dataclass(frozen=True, slots=True)
class DispatchAnswered:
    """The worker runs all of the dispatch except what it refuses."""

    worker_id: str
    number: int
    refusals: tuple[DispatchRefusal, ...]


@dataclass(frozen=True, slots=True)
class DispatchUnanswered:
    """No answer came: unless `is_disconnected`, whether the worker runs it is not known."""

    worker_id: str
    number: int
    is_disconnected: bool = False
    """Whether the worker is not connected to the broker, so that no process has received it."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A worker stopped requests before their end, or its engine failed at them."""

    request: ParkRequest


@dataclass(frozen=True, slots=True)
class StreamLost:
    """A gateway's stream from a worker broke."""

    request: LostRequest


@dataclass(frozen=True, slots=True)
class Settled:
    """A gateway has relayed the ends of requests."""

    request: SettleRequest


@dataclass(frozen=True, slots=True)
class CancelRequested:
    request_id: str


@dataclass(frozen=True, slots=True)
class TakeOverRequested:
    """A client has connected to this gateway for a request. The gateway has opened it once the
    message has a resume point."""

    request: LocateRequest


@dataclass(frozen=True, slots=True)
class NoticeAnswered:
    notice: SendNotice
    points: tuple[ResumePoint, ...]
    unknown_request_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoticeUnanswered:
    notice: SendNotice
    is_disconnected: bool = False
    """Whether the gateway is not connected to the broker."""


@dataclass(frozen=True, slots=True)
class BusDown:
    """The bus was down until now: the silence of workers and gateways means nothing."""


@dataclass(frozen=True, slots=True)
class WeightsChanged:
    """The weights of all tenants whose weight is not 1."""

    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ModelRemoved:
    """The model is no longer configured; or, with False, it is again."""

    removed: bool = True


Event = (
    Submitted
    | LaneCaughtUp
    | WorkerReported
    | PrefixesReported
    | GatewayReported
    | DispatchAnswered
    | DispatchUnanswered
    | Parked
    | StreamLost
    | Settled
    | CancelRequested
    | TakeOverRequested
    | NoticeAnswered
    | NoticeUnanswered
    | BusDown
    | ModelRemoved
    | WeightsChanged
)

# Commands


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Leads to exactly one of DispatchAnswered and DispatchUnanswered."""

    worker_id: str
    number: int
    message: DispatchRequest


@dataclass(frozen=True, slots=True)
class SendNotice:
    """Leads to exactly one of NoticeAnswered and NoticeUnanswered; one per gateway at a time."""

    gateway_id: str
    ended: tuple[tuple[str, HeadraceError], ...]
    fences: tuple[tuple[str, int], ...]
    """(request id, attempt)."""
    records: tuple[RequestRecord, ...] = ()
    """Records of the fences by which a gateway is assigned requests that it has not requested."""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Remove the request's message from its lane; repeated until it is confirmed."""

    request_id: str
    priority: str
    acknowledgement: str
    usage: UsageRecord | None = field(default=None, compare=False)
    """To be published before. None: the message is another's again, or a probe's."""
    unsettled: RequestRecord | None = field(default=None, compare=False)
    """Of a request that no gateway has settled: where one has stored its result nevertheless, the
    figures of that replace those of `usage`."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Store this error as its result, unless it has one; repeated until done."""

    record: RequestRecord
    error: HeadraceError
    acknowledge: Acknowledge
    """To be executed after that."""


@dataclass(frozen=True, slots=True)
class CancelOnWorker:
    """Sent once: the worker's reports show if it did not arrive."""

    worker_id: str
    request_id: str
    attempt: int
    code: int = Code.CANCELLED.number


@dataclass(frozen=True, slots=True)
class ParkOnWorker:
    """Stop an attempt before its end; leads to Parked. Sent once: reports show if it is lost."""

    worker_id: str
    request_id: str
    attempt: int
    orphaned: bool = False
    """Whether its gateway is gone; else a more urgent request needs its slots."""


@dataclass(frozen=True, slots=True)
class PublishDeadLetter:
    """Store a message in the dead-letter stream."""

    message: bytes
    reason: str
    attempts: int = 0
    """Failed attempts; 0 for a message that could not be read."""


@dataclass(frozen=True, slots=True)
class StepDown:
    """End this leadership: another scheduler leads the model."""

    reason: str


Command = (
    Dispatch
    | SendNotice
    | Acknowledge
    | StoreResult
    | CancelOnWorker
    | ParkOnWorker
    | PublishDeadLetter
    | StepDown
)
