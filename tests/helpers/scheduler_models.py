"""A worker and a client, as the scheduler's world has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.state.events import Event, Submitted
from headrace_worker.dispatch.report_delta import ChangeTracker
from helpers.scheduler_events import reported


@dataclass
class WorkerModel:
    worker_id: str
    slots: int
    running: dict[str, RequestRecord] = field(default_factory=dict)
    counted: tuple[int, int] = (0, 0)
    number: int = 0
    changes: ChangeTracker = field(default_factory=ChangeTracker)
    late: list[Event] = field(default_factory=list)
    """Its reports that are still on their way."""
    alive: bool = True
    draining: bool = False

    @property
    def free(self) -> int:
        return self.slots - sum(r.n for r in self.running.values())

    def report(self, now_s: float, *, full: bool) -> Event:
        self.number += 1
        running = {i: r.attempt for i, r in self.running.items()}
        delta = self.changes.delta(self.number, running, full=full)
        return reported(
            self.worker_id,
            self.number,
            received_s=now_s,
            free=self.free,
            total=self.slots,
            running=dict(delta.running),
            since=delta.since,
            ended=delta.ended,
            counted=self.counted,
            draining=self.draining,
        )


@dataclass
class Client:
    """A request at its gateway: what its client has seen."""

    seen: list[int] = field(default_factory=list)
    newest: int = 0
    fence: int = 0
    open: bool = True
    gateway: str = "g"
    since: int = 0
    """Attempt at which its gateway took it over."""
    attachable: bool = False
    detached: bool = False
    """It is its gateway that reads it."""
    result: tuple[int, int] | None = None
    """Code and output tokens of what is stored as its result."""
    made: int = 0
    """Most output tokens that it ever had."""
    away: bool = False
    """Its gateway is of no use to it; it has not come to another yet."""
    left_s: float = 0.0
    """When it left its gateway, or that one left it."""
    former: dict[str, int] = field(default_factory=dict)
    """Frozen gateways that do not know that it left, and since when they had it."""
    deadline_s: float = float("inf")
    is_cancelled: bool = False
    waits_for_quota: bool = False
    """Its gateway accepts no more of it before more is granted."""

    @property
    def cause(self) -> ParkCause.ValueType:
        """Of its resume points."""
        causes = ParkCause
        return causes.PARK_CAUSE_QUOTA if self.waits_for_quota else causes.PARK_CAUSE_LOST

    @property
    def kept(self) -> bool:
        """There is a result of it."""
        return self.result is not None

    @property
    def is_present(self) -> bool:
        return self.open and not self.away


def unread(stored: Mapping[str, Submitted]) -> list[Submitted]:
    """What a new leader is to read, in its order."""
    return sorted(stored.values(), key=lambda event: event.request.sequence)


def as_stored(event: Submitted) -> Submitted:
    """As it is read: without what earlier leaders have noted on it."""
    record = RequestRecord()
    record.CopyFrom(event.request.record)
    return Submitted(replace(event.request, record=record))
