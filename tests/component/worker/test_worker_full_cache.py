"""A worker whose cache runs full hands requests back, with all that was made of them."""

from __future__ import annotations

from threading import Event

from torch import Tensor, nn

from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.internal.v1.request_pb2 import RequestRecord, Sampling
from headrace.v1.common_pb2 import Priority
from headrace_worker.engine.base.interface import SamplingParameters, Sequence
from headrace_worker.engine.core.slot_engine import SlotEngine
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor
from helpers.running_engine import alone
from helpers.tiny_models import packed, random_model, tiny_llama
from helpers.worker_actors import SchedulerActor, record, worker_here

GREEDY = Sampling(max_tokens=110, top_p=1, repetition_penalty=1, ignore_eos=True)


def crowded() -> SlotEngine:
    """4 slots of 128 tokens, and 12 pages of 16: one text may fill 8."""
    # Its model is its own: it runs on a thread of its own.
    return packed(random_model("llama"), kv_store="pages", cache_tokens=12 * 16)


def request_for(request_id: str, gw: GatewayActor, **fields: object) -> RequestRecord:
    values: dict[str, object] = {"weights_digest": "", "sampling": GREEDY, **fields}
    return record(request_id, gw, **values)  # type: ignore[arg-type]  # what it passes on


def undisturbed(request: RequestRecord, choice: int = 0) -> list[int]:
    sampling = request.sampling
    parameters = SamplingParameters(
        max_tokens=sampling.max_tokens, temperature=sampling.temperature, ignore_eos=True
    )
    one = Sequence(0, tuple(request.prompt_ids), (), parameters, request.seed + choice)
    return alone(packed(tiny_llama()), one)


async def test_the_least_urgent_is_parked_and_goes_on_as_if_nothing_had_been(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, crowded()) as worker:
        worker_id = await scheduler.first_worker()
        urgent = request_for("a", gw, priority=Priority.PRIORITY_INTERACTIVE)
        bulk = request_for("b", gw, priority=Priority.PRIORITY_BULK)
        assert await scheduler.dispatch(worker_id, bulk, urgent) == []
        await eventually(lambda: bool(scheduler.parked))
        (point,) = scheduler.parked
        assert (point.request_id, point.cause) == ("b", ParkCause.PARK_CAUSE_PREEMPTED)
        assert not point.HasField("error"), "it is no failure of the request's"
        made = list(point.progress[0].output_ids)
        assert made == undisturbed(bulk)[: len(made)]
        await eventually(lambda: gw.said("a").has_ended)
        assert gw.said("a").token_ids == undisturbed(urgent)
        again = request_for("b", gw, attempt=2, progress=point.progress)
        assert await scheduler.dispatch(worker_id, again) == []
        await eventually(lambda: gw.said("b", attempt=2).has_ended)
        assert made + gw.said("b", attempt=2).token_ids == undisturbed(bulk)
        await eventually(lambda: worker.is_idle)


async def test_choices_of_one_request_wait_for_each_other_where_they_are(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, crowded()) as worker:
        worker_id = await scheduler.first_worker()
        sampled = Sampling(
            max_tokens=110, temperature=1, top_p=1, repetition_penalty=1, ignore_eos=True
        )
        request = request_for("a", gw, n=3, sampling=sampled)
        assert await scheduler.dispatch(worker_id, request) == []
        await eventually(lambda: all(gw.said("a", choice).has_ended for choice in range(3)))
        for choice in range(3):
            assert gw.said("a", choice).token_ids == undisturbed(request, choice)
        await eventually(lambda: worker.is_idle)
    assert scheduler.parked == []


async def test_reports_contain_the_free_room(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    model, may_decode = random_model("llama"), Event()
    engine = packed(model, kv_store="pages", cache_tokens=12 * 16)

    def wait_before_decoding(_: nn.Module, arguments: tuple[Tensor, ...], __: Tensor) -> None:
        if arguments[0].numel() == 1:
            assert may_decode.wait(30)

    # Or it might be over before any report.
    model.get_input_embeddings().register_forward_hook(wait_before_decoding)
    async with worker_here(nats_url, engine) as worker:
        worker_id = await scheduler.first_worker()
        assert scheduler.last.models[0].free_cache_tokens == 12 * 16
        await scheduler.dispatch(worker_id, request_for("a", gw, prompt_ids=[9] * 100))
        await eventually(lambda: scheduler.last.models[0].free_cache_tokens <= (12 - 7) * 16)
        may_decode.set()
        await eventually(lambda: worker.is_idle)
        await eventually(lambda: scheduler.last.models[0].free_cache_tokens == 12 * 16)
