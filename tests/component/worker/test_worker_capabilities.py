"""Workers whose engines cannot do everything, or nothing for a while."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from headrace.internal.v1.dispatch_pb2 import DispatchRefusalCause
from headrace.internal.v1.request_pb2 import ChoiceProgress
from headrace.v1.common_pb2 import FinishReason
from headrace_worker.engine.backends.remote_engine import TokenChunk
from headrace_worker.engine.base.interface import FinishReason as Ended
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor
from helpers.worker_actors import SchedulerActor, record, worker_here
from helpers.written_source import ScriptedBackend, remote_engine

WHOLE = (TokenChunk((20, 21), Ended.STOP),)


async def test_an_engine_that_cannot_resume_reports_so_and_gets_no_partial_answers(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    begun = [ChoiceProgress(choice=0, output_ids=[20, 21, 22])]
    ended = [
        ChoiceProgress(choice=0, output_ids=[20], finish_reason=FinishReason.FINISH_REASON_STOP)
    ]
    with closing(remote_engine(ScriptedBackend(WHOLE), resume=False)) as engine:
        async with worker_here(nats_url, engine):
            worker_id = await scheduler.first_worker()
            can = scheduler.last.models[0].card.capabilities
            assert (can.resume, can.park, can.logprobs) == (False, True, False)
            (refusal,) = await scheduler.dispatch(
                worker_id,
                record("half", gw, progress=begun),
                record("other-choice", gw, n=2, progress=ended),
                record("new", gw),
            )
            assert refusal.request_id == "half"
            assert refusal.cause == DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_NOT_RESUMABLE
            assert refusal.message.startswith("3 tokens of the answer have been delivered, and")
            for request_id, choice in (("new", 0), ("other-choice", 1)):
                said = gw.said(request_id, choice)
                await eventually(partial(getattr, said, "has_ended"))


async def test_a_worker_whose_engine_refuses_offers_no_slots_until_it_recovers(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    source = ScriptedBackend(WHOLE, unavailable_reason="its upstream is unavailable")
    with closing(remote_engine(source)) as engine:
        async with worker_here(nats_url, engine):
            worker_id = await scheduler.first_worker()
            assert scheduler.free_slots == 0
            (refusal,) = await scheduler.dispatch(worker_id, record("a", gw))
            assert refusal.cause == DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL
            assert refusal.message == "its upstream is unavailable"
            source.unavailable_reason = ""
            await eventually(lambda: scheduler.free_slots == 4)
            assert await scheduler.dispatch(worker_id, record("b", gw)) == []
            await eventually(lambda: gw.said("b").has_ended)
