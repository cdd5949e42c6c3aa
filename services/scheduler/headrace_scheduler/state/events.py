"""What the state machine of a model is told, and what it asks to be done."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.errors import HeadraceError
from headrace.internal.v1.dispatch_pb2 import DispatchRefusal, DispatchRequest
from headrace.internal.v1.reports_pb2 import (
    GatewayReport,
    LostRequest,
    ParkRequest,
    PrefixReport,
    ResumePoint,
    SettleRequest,
    TakeOverRequest,
    WorkerReport,
)
from headrace.internal.v1.request_pb2 import RequestRecord

# Events


@dataclass(frozen=True, slots=True)
class Submitted:
    """Read from a lane. Times are on this process's monotonic clock; infinity is none."""

    record: RequestRecord
    priority: str
    sequence: int
    acknowledgement: str
    arrival_s: float
    deadline_s: float
    patient_until_s: float
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LaneCaughtUp:
    """A lane has been read to its end for the first time."""

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
    worker_id: str
    number: int
    refusals: tuple[DispatchRefusal, ...]


@dataclass(frozen=True, slots=True)
class DispatchUnanswered:
    """Whether the worker took it is not known."""

    worker_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Parked:
    request: ParkRequest


@dataclass(frozen=True, slots=True)
class StreamLost:
    request: LostRequest


@dataclass(frozen=True, slots=True)
class Settled:
    request: SettleRequest


@dataclass(frozen=True, slots=True)
class CancelRequested:
    request_id: str


@dataclass(frozen=True, slots=True)
class TakeOverRequested:
    """Somebody wants to read a request at this gateway, which is open there once it has a point."""

    request: TakeOverRequest


@dataclass(frozen=True, slots=True)
class NoticeAnswered:
    notice: SendNotice
    points: tuple[ResumePoint, ...]
    unknown_request_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoticeUnanswered:
    notice: SendNotice
    nobody_listens: bool = False
    """The gateway is not connected to the broker."""


@dataclass(frozen=True, slots=True)
class BusDown:
    """The bus was away until now: nobody's silence means anything."""


@dataclass(frozen=True, slots=True)
class ModelRemoved:
    """The model is not configured any more; or, with False, it is again."""

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
)

# Commands


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Answered by exactly one of DispatchAnswered and DispatchUnanswered."""

    worker_id: str
    number: int
    message: DispatchRequest


@dataclass(frozen=True, slots=True)
class SendNotice:
    """Answered by exactly one of NoticeAnswered and NoticeUnanswered; one per gateway at a time."""

    gateway_id: str
    ended: tuple[tuple[str, HeadraceError], ...]
    fences: tuple[tuple[str, int], ...]
    """(request id, attempt)."""
    records: tuple[RequestRecord, ...] = ()
    """Of those fences by which a gateway is given requests that it has not asked for."""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Remove the request's message from its lane; repeated until done."""

    request_id: str
    priority: str
    acknowledgement: str


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Keep this error as its result, unless it has one, and acknowledge; repeated until done."""

    record: RequestRecord
    error: HeadraceError
    priority: str
    acknowledgement: str


@dataclass(frozen=True, slots=True)
class CancelOnWorker:
    """Once is enough: reports tell if it did not arrive."""

    worker_id: str
    request_id: str
    attempt: int
    code: int


@dataclass(frozen=True, slots=True)
class ParkOnWorker:
    """Let go of it, unfinished: it comes back as Parked. A report says if this did not arrive."""

    worker_id: str
    epoch: int
    request_id: str
    attempt: int
    orphaned: bool = False
    """Its gateway is gone, or else a more urgent one wants its slots."""


@dataclass(frozen=True, slots=True)
class PublishDeadLetter:
    """Keep it in the dead-letter stream."""

    message: bytes
    reason: str
    attempts: int = 0
    """That failed; 0 of what could not be read."""


@dataclass(frozen=True, slots=True)
class StepDown:
    """Somebody else leads this model."""

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
