"""Events for the scheduler's machine, and a bench to put one on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.rpc.status_pb2 import Status

from headrace.internal.v1.dispatch_pb2 import DispatchRefusal, DispatchRefusalCause
from headrace.internal.v1.model_card_pb2 import Adapter, Capabilities, ModelCard
from headrace.internal.v1.reports_pb2 import (
    GatewayReport,
    LocateRequest,
    LostRequest,
    ParkCause,
    ParkRequest,
    PrefixReport,
    ResumePoint,
    RunningRequest,
    ServedModel,
    Settlement,
    SettleRequest,
    TakenOver,
    WorkerReport,
)
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord
from headrace.v1.common_pb2 import FinishReason
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Leadership, Machine
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.state.events import (
    Command,
    Dispatch,
    DispatchAnswered,
    Event,
    GatewayReported,
    LaneCaughtUp,
    NoticeAnswered,
    Parked,
    PrefixesReported,
    SendNotice,
    Settled,
    StreamLost,
    Submitted,
    TakeOverRequested,
    WorkerReported,
)
from helpers.counting_observer import CountingObserver, apply_and_decide

MODEL = "tiny"
EPOCH = 7
NEVER = float("inf")
C = TypeVar("C")


class Bench:
    """A machine, its clock, and the commands it gave last."""

    def __init__(self, settings: SchedulerSettings | None = None, *, holding: bool = False) -> None:
        self.now_s = 100.0
        self.observer = CountingObserver()
        leadership = Leadership("s-1", MODEL, EPOCH, self.now_s, listening_since_s=0.0)
        self.machine = Machine(leadership, settings or SchedulerSettings(), self.observer)
        self.commands: list[Command] = []
        self._sequence = 0
        if not holding:
            self.apply(*caught_up())
            assert not self.machine.is_holding

    def apply(self, *events: Event) -> list[Command]:
        """Apply all, decide once."""
        self.commands = apply_and_decide(self.machine, self.observer, events, now_s=self.now_s)
        self.machine.check_integrity()
        return self.commands

    def after(self, seconds: float) -> list[Command]:
        """What it decides when nothing happens for so long."""
        self.now_s += seconds
        return self.apply()

    def submit(self, *request_ids: str, **fields: object) -> list[Command]:
        events = []
        for request_id in request_ids:
            self._sequence += 1
            events.append(submitted(request_id, self._sequence, now_s=self.now_s, **fields))
        return self.apply(*events)

    def given(self, kind: type[C]) -> list[C]:
        """Commands of a kind among those given last."""
        return [c for c in self.commands if isinstance(c, kind)]

    def only(self, kind: type[C]) -> C:
        (found,) = self.given(kind)
        return found

    def accept(self) -> list[Command]:
        """The worker takes all of the dispatches just given."""
        return self.apply(
            *(DispatchAnswered(d.worker_id, d.number, ()) for d in self.given(Dispatch))
        )

    def refuse(self, cause: DispatchRefusalCause.ValueType) -> list[Command]:
        """The worker takes none of the dispatch just given."""
        dispatch = self.only(Dispatch)
        refusals = [
            DispatchRefusal(request_id=r.request_id, cause=cause, message="no")
            for r in dispatch.message.requests
        ]
        return self.apply(DispatchAnswered(dispatch.worker_id, dispatch.number, tuple(refusals)))

    def settle(self, *request_ids: str, code: int = 0, output_tokens: int = 0) -> list[Command]:
        return self.apply(settled(*request_ids, code=code, output_tokens=output_tokens))

    def worker(self, worker_id: str = "w", number: int = 1, **fields: object) -> list[Command]:
        return self.apply(reported(worker_id, number, received_s=self.now_s, **fields))


def caught_up() -> list[Event]:
    return [LaneCaughtUp(p) for p in ("interactive", "standard", "bulk")]


def submitted(
    request_id: str,
    sequence: int = 1,
    *,
    now_s: float = 100.0,
    priority: object = "standard",
    n: object = 1,
    gateway: object = "g",
    digest: object = "",
    adapter: object = "",
    deadline_s: object = NEVER,
    queue_deadline_s: object = NEVER,
    prompt_tokens: object = 3,
    tenant: object = "",
    prompt: object = None,
    attachable: object = False,
    detached: object = False,
    max_tokens: object = 4,
    probe: object = False,
    once: object = False,
) -> Submitted:
    assert isinstance(n, int)
    assert isinstance(prompt_tokens, int)
    assert prompt is None or isinstance(prompt, list)
    assert isinstance(deadline_s, float)
    assert isinstance(queue_deadline_s, float)
    record = RequestRecord(
        request_id=request_id,
        model=MODEL,
        n=n,
        gateway_id=str(gateway),
        weights_digest=str(digest),
        adapter=str(adapter),
        adapter_digest=f"digest of {adapter}" if adapter else "",
        prompt_ids=range(prompt_tokens) if prompt is None else prompt,
        tenant=str(tenant),
        attachable=bool(attachable),
        detached=bool(detached),
        probe=bool(probe),
        once=bool(once),
    )
    assert isinstance(max_tokens, int)
    record.sampling.max_tokens = max_tokens
    request = Request(
        record, str(priority), sequence, f"ack {sequence}", now_s, deadline_s, queue_deadline_s
    )
    return Submitted(request)


def reported(
    worker_id: str,
    number: int,
    *,
    received_s: float,
    free: object = 4,
    total: object = 4,
    running: object = None,
    counted: object = (0, 0),
    draining: object = False,
    leaving: object = False,
    digest: object = "w1",
    adapters: object = (),
    parks: object = True,
    since: object = 0,
    ended: object = (),
    token_s: object = 0.0,
) -> WorkerReported:
    """`running` is attempts by request id; `counted` the (epoch, number) of the last dispatch.

    With `since`, both `running` and `ended` are what changed after the report of that number.
    """
    assert isinstance(since, int)
    assert isinstance(ended, tuple)
    assert isinstance(adapters, tuple)
    assert isinstance(free, int)
    assert isinstance(total, int)
    assert isinstance(counted, tuple)
    assert running is None or isinstance(running, dict)
    served = ServedModel(
        card=ModelCard(
            model=MODEL,
            weights_digest=str(digest),
            capabilities=Capabilities(resume=True, park=bool(parks)),
            adapters=[Adapter(name=name, digest=f"digest of {name}") for name in adapters],
        ),
        total_slots=total,
        free_slots=free,
        free_cache_tokens=10_000,
        running=[RunningRequest(request_id=i, attempt=a) for i, a in (running or {}).items()],
        dispatch_epoch=counted[0],
        dispatch_number=counted[1],
        ended=ended,
    )
    assert isinstance(token_s, float)
    if token_s:
        served.token_time.FromNanoseconds(int(token_s * 1e9))
    report = WorkerReport(
        worker_id=worker_id,
        name=f"name of {worker_id}",
        number=number,
        models=[served],
        draining=bool(draining),
        leaving=bool(leaving),
        since=since,
    )
    return WorkerReported(report, received_s)


def gateway_reported(
    gateway_id: str = "g",
    *,
    received_s: float,
    leaving: bool = False,
    taken_over: dict[str, int] | None = None,
    address: str = "",
    draining: bool = False,
) -> GatewayReported:
    """`taken_over` is since which attempts it holds what it did not publish."""
    taken = [
        TakenOver(request_id=i, held_since_attempt=since, delivery_address=f"at {gateway_id}")
        for i, since in (taken_over or {}).items()
    ]
    report = GatewayReport(
        gateway_id=gateway_id,
        leaving=leaving,
        taken_over=taken,
        draining=draining,
        delivery_address=address,
    )
    return GatewayReported(report, received_s)


def settled(*request_ids: str, code: int = 0, output_tokens: int = 0, since: int = 0) -> Settled:
    settlements = [
        Settlement(request_id=i, code=code, output_tokens=output_tokens, held_since_attempt=since)
        for i in request_ids
    ]
    return Settled(SettleRequest(gateway_id="g", settlements=settlements))


def take_over_requested(
    request_id: str, gateway_id: str, *, unreachable: str = "", stands: ResumePoint | None = None
) -> TakeOverRequested:
    """A gateway requests to take over, or has opened the request and sends its resume point."""
    return TakeOverRequested(
        LocateRequest(
            request_id=request_id,
            verb=LocateRequest.VERB_TAKE_OVER,
            gateway_id=gateway_id,
            delivery_address=f"at {gateway_id}",
            unreachable_gateway_id=unreachable,
            point=stands,
        )
    )


def point(
    request_id: str,
    attempt: int,
    *outputs: list[int],
    error: str = "",
    finished: bool = False,
    cause: ParkCause.ValueType = ParkCause.PARK_CAUSE_LOST,
) -> ResumePoint:
    """Where a request stands: the output ids of each choice."""
    reasons = FinishReason
    reason = reasons.FINISH_REASON_STOP if finished else reasons.FINISH_REASON_UNSPECIFIED
    found = ResumePoint(request_id=request_id, attempt=attempt, cause=cause)
    for choice, output_ids in enumerate(outputs):
        found.progress.append(
            ChoiceProgress(choice=choice, output_ids=output_ids, finish_reason=reason)
        )
    if error:
        found.error.CopyFrom(Status(code=13, message=error))
    return found


def parked(worker_id: str, *points: ResumePoint) -> Parked:
    return Parked(ParkRequest(worker_id=worker_id, points=points))


def lost(worker_id: str, *points: ResumePoint) -> StreamLost:
    return StreamLost(LostRequest(gateway_id="g", worker_id=worker_id, points=points))


def answer(notice: SendNotice, *points: ResumePoint, unknown: Sequence[str] = ()) -> NoticeAnswered:
    return NoticeAnswered(notice, points, tuple(unknown))


def prefixes_reported(
    worker_id: str, held: Iterable[int], *, dropped: Iterable[int] = (), full: bool = False
) -> PrefixesReported:
    report = PrefixReport(worker_id=worker_id, model=MODEL, full=full, held=held, dropped=dropped)
    return PrefixesReported(report)
