"""A worker that makes vectors, among a real broker, a gateway and a scheduler."""

from __future__ import annotations

from typing import Any

from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.internal.v1.request_pb2 import Input, RequestRecord, Sampling
from headrace.v1.common_pb2 import FinishReason
from headrace_worker.engine.base.interface import EngineFacts
from headrace_worker.engine.encoder.encoder_engine import EncoderEngine
from headrace_worker.runtime.delivery import MESSAGE_VECTOR_BYTES
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor
from helpers.tiny_encoders import LengthsForward, length_of
from helpers.worker_actors import DIGEST, SchedulerActor, record, worker_here

STOP = FinishReason.FINISH_REASON_STOP


def encoder(*, dimensions: int = 4) -> EncoderEngine:
    facts = EngineFacts(
        name="encoder",
        dtype="float32",
        max_slots=64,
        context_tokens=512,
        vocabulary_size=100,
        eos_token_ids=(),
        weights_digest=DIGEST,
        batch_invariant=False,
        makes_vectors=True,
    )
    return EncoderEngine(LengthsForward(dimensions), facts, batch_tokens=64)


def inputs_record(request_id: str, gw: GatewayActor, count: int, **fields: Any) -> RequestRecord:
    """Input c has 5 + c tokens."""
    inputs = [Input(token_ids=[7] * (5 + number)) for number in range(count)]
    none: dict[str, Any] = {"prompt_ids": [], "sampling": Sampling()}
    return record(request_id, gw, n=count, inputs=inputs, **none | fields)


async def test_every_vector_comes_in_the_end_of_its_input(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, encoder()) as worker:
        request = inputs_record("a", gw, 40)
        assert await scheduler.dispatch(await scheduler.first_worker(), request) == []
        await eventually(lambda: all(gw.said("a", c).has_ended for c in range(40)))
        for choice in range(40):
            (ending,) = gw.said("a", choice).endings
            assert (ending.finish_reason, ending.output_tokens) == (STOP, 0)
            assert length_of(ending.vector) == 5 + choice
        await eventually(lambda: worker.is_idle)


async def test_vectors_are_sent_again_until_they_are_acknowledged(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    gw.acknowledges = False
    dimensions = MESSAGE_VECTOR_BYTES // 4 // 4  # four vectors fill a message
    async with worker_here(nats_url, encoder(dimensions=dimensions)) as worker:
        await scheduler.dispatch(await scheduler.first_worker(), inputs_record("a", gw, 12))
        await eventually(lambda: all(gw.said("a", c).has_ended for c in range(12)))
        gw.acknowledges = True
        gw.break_streams()
        await eventually(lambda: worker.is_idle)
        for choice in range(12):
            said = gw.said("a", choice)
            assert {length_of(each.vector) for each in said.endings} == {5 + choice}
            assert len(said.endings) == 2
        assert len(gw.message_tokens) >= 6, "all of it came in one message"


async def test_a_worker_that_leaves_counts_on_no_vector_that_may_not_have_arrived(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    gw.acknowledges = False
    async with worker_here(nats_url, encoder()) as worker:
        await scheduler.dispatch(await scheduler.first_worker(), inputs_record("a", gw, 2))
        stuck = inputs_record("b", gw, 3, attempt=7)
        stuck.inputs[1].token_ids[:] = [LengthsForward.STUCK]
        await scheduler.dispatch(await scheduler.first_worker(), stuck)
        await eventually(lambda: bool(scheduler.parked))
        (point,) = scheduler.parked
        assert (point.request_id, point.attempt) == ("b", 7)
        assert point.cause == ParkCause.PARK_CAUSE_UNSPECIFIED
        assert "stuck" in point.error.message
        assert all(not p.finish_reason for p in point.progress)
        await eventually(lambda: all(gw.said("a", choice).has_ended for choice in range(2)))
        gw.acknowledge_all()
        await eventually(lambda: worker.is_idle)
