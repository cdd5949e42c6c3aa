"""Who the state machine of a model deals with, as a test's world has them."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.events import Event
from headrace_worker.changes import Changes


@dataclass
class WorkerModel:
    worker_id: str
    slots: int
    running: dict[str, RequestRecord] = field(default_factory=dict)
    counted: tuple[int, int] = (0, 0)
    number: int = 0
    changes: Changes = field(default_factory=Changes)
    late: list[Event] = field(default_factory=list)
    """Its reports that are still on their way."""
    alive: bool = True

    @property
    def free(self) -> int:
        return self.slots - sum(r.n for r in self.running.values())


@dataclass
class Client:
    """A request at its gateway: what its client has seen."""

    seen: list[int] = field(default_factory=list)
    newest: int = 0
    fence: int = 0
    open: bool = True
