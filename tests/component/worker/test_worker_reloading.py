"""A worker that reloads its model: what it served goes on, and nothing is lost on the way."""

from __future__ import annotations

import json
import signal
import weakref
from dataclasses import replace
from pathlib import Path

from prometheus_client import REGISTRY

from headrace.internal.v1.reports_pb2 import ParkCause, WorkerReport
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.scripted import ScriptedEngine, ScriptedSettings
from headrace_worker.engine.backends.scripted_text import scripted_tokenizer_files
from headrace_worker.engine.base.interface import Engine, EngineFacts
from headrace_worker.engine.base.loaded_model import LoadedModel
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor, has_tokens
from helpers.worker_actors import (
    DIGEST,
    ENDLESS,
    MODEL,
    SchedulerActor,
    record,
    scripted,
    undisturbed,
    worker_here,
    worker_process,
)

OTHER = "scripted-2"


class OtherWeights(ScriptedEngine):
    @property
    def facts(self) -> EngineFacts:
        return replace(super().facts, weights_digest=OTHER)


def loaded(engine: Engine) -> LoadedModel:
    return LoadedModel(engine, scripted_tokenizer_files(), {}, parameters=0)


async def load_other(_: WorkerSettings) -> LoadedModel:
    settings = ScriptedSettings(step_s=0.002, max_slots=8, context_tokens=2 * ENDLESS)
    return loaded(OtherWeights(settings))


async def load_same(_: WorkerSettings) -> LoadedModel:
    return loaded(scripted())


def last_of(scheduler: SchedulerActor, worker_id: str) -> WorkerReport:
    return [report for report in scheduler.reports if report.worker_id == worker_id][-1]


async def second_worker(scheduler: SchedulerActor, first: str) -> str:
    """The id under which the reloaded model is served."""
    await eventually(lambda: scheduler.last.worker_id != first)
    return scheduler.last.worker_id


def failed_reloads() -> float:
    labels = {"model": MODEL, "outcome": "failed"}
    return REGISTRY.get_sample_value("headrace_worker_reloads_total", labels) or 0.0


async def test_a_reload_that_fails_leaves_the_worker_serving_what_it_had(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    before = failed_reloads()
    async with worker_here(nats_url, scripted(step_s=0.005)) as worker:
        worker_id = await scheduler.first_worker()
        request = record("a", gw, max_tokens=100)
        await scheduler.dispatch(worker_id, request)
        await has_tokens(gw, "a", 5)
        worker.app.reloader.request()
        await eventually(lambda: failed_reloads() == before + 1)
        assert await scheduler.dispatch(worker_id, record("b", gw)) == []
        await eventually(lambda: gw.said("a").has_ended and gw.said("b").has_ended)
        assert gw.said("a").token_ids == undisturbed(request)
        assert {report.worker_id for report in scheduler.reports} == {worker_id}


async def test_other_weights_take_over_while_the_old_ones_finish_what_was_made_for_them(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(step_s=0.005), load=load_other, drain_s=20) as worker:
        old_id = await scheduler.first_worker()
        running, waiting = record("a", gw, max_tokens=100), record("b", gw)
        await scheduler.dispatch(old_id, running)
        await has_tokens(gw, "a", 5)
        worker.app.reloader.request()
        new_id = await second_worker(scheduler, old_id)
        digests = [
            last_of(scheduler, each).models[0].card.weights_digest for each in (old_id, new_id)
        ]
        assert digests == [DIGEST, OTHER]
        assert await scheduler.dispatch(new_id, record("c", gw, weights_digest=OTHER)) == []
        assert await scheduler.dispatch(old_id, waiting) == [], "it waited in its lane until now"
        await eventually(lambda: last_of(scheduler, old_id).leaving, within_s=10)
        assert gw.said("a").token_ids == undisturbed(running)
        assert gw.said("b").token_ids == undisturbed(waiting)
        await eventually(lambda: gw.said("c").has_ended)
        assert scheduler.parked == []


async def test_what_the_old_weights_do_not_finish_in_the_time_of_a_drain_is_parked(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(), load=load_other, drain_s=0.2) as worker:
        old_id = await scheduler.first_worker()
        request = record("a", gw, max_tokens=ENDLESS)
        await scheduler.dispatch(old_id, request)
        await has_tokens(gw, "a", 5)
        worker.app.reloader.request()
        await eventually(lambda: last_of(scheduler, old_id).leaving)
        (point,) = scheduler.parked
        assert (point.request_id, point.cause) == ("a", ParkCause.PARK_CAUSE_DRAIN)


async def test_of_the_same_weights_what_runs_is_handed_over_at_once_and_goes_on(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, scripted(step_s=0.005), load=load_same, drain_s=20) as worker:
        old_id = await scheduler.first_worker()
        request = record("a", gw, max_tokens=400)
        await scheduler.dispatch(old_id, request)
        await has_tokens(gw, "a", 5)
        worker.app.reloader.request()
        new_id = await second_worker(scheduler, old_id)
        await eventually(lambda: bool(scheduler.parked))
        (point,) = scheduler.parked
        again = record("a", gw, max_tokens=400, attempt=2, progress=point.progress)
        assert await scheduler.dispatch(new_id, again) == []
        await eventually(lambda: gw.said("a", attempt=2).has_ended)
        made = list(point.progress[0].output_ids)
        assert made + gw.said("a", attempt=2).token_ids == undisturbed(request)


async def test_what_was_served_before_is_not_kept_in_memory(
    nats_url: str, scheduler: SchedulerActor
) -> None:
    made: list[weakref.ref[Engine]] = []

    async def load(_: WorkerSettings) -> LoadedModel:
        engine = scripted()
        made.append(weakref.ref(engine))
        return loaded(engine)

    async with worker_here(nats_url, load=load) as worker:
        for number in (1, 2):
            worker.app.reloader.request()
            await eventually(lambda number=number: len(made) == number)
            await eventually(lambda: len(worker.app.reloader.servers) == 1)
        await eventually(lambda: made[0]() is None)
        assert made[1]() is not None


async def test_a_process_reloads_its_settings_file_at_sighup_and_logs_what_it_cannot_load(
    nats_url: str, scheduler: SchedulerActor, tmp_path: Path
) -> None:
    config, log = tmp_path / "worker.toml", tmp_path / "worker.log"

    def logged(event: str) -> list[dict[str, str]]:
        lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, lines) if line["event"] == event]

    config.write_text('dtype = "float32"\n')
    engine = {"engine": "transformers", "threads": 1, "max_slots": 2, "drain_s": 0}
    environment = {"HEADRACE_WORKER_CONFIG": str(config)}
    async with worker_process(nats_url, tmp_path, environment=environment, **engine) as worker:
        await eventually(lambda: bool(scheduler.reports), within_s=50)
        first = scheduler.last.worker_id
        config.write_text('model_source = "/no/such/model"\n')
        worker.send(signal.SIGHUP)
        await eventually(lambda: len(logged("model.load_failed")) == 1, within_s=20)
        assert "there is no such folder" in logged("model.load_failed")[0]["why"]
        config.write_text('dtype = "bfloat16"\nname = "another"\n')
        worker.send(signal.SIGHUP)
        await eventually(lambda: len(logged("model.load_failed")) == 2, within_s=20)
        assert logged("model.load_failed")[1]["why"] == "name changes with a restart only"
        assert scheduler.last.worker_id == first
        config.write_text('dtype = "bfloat16"\n')
        worker.send(signal.SIGHUP)
        await eventually(lambda: scheduler.last.worker_id != first, within_s=20)
        await eventually(lambda: last_of(scheduler, first).leaving)
        card = scheduler.last.models[0].card
        assert (card.dtype, card.batch_invariant) == ("bfloat16", False)
        worker.send(signal.SIGTERM)
        assert await worker.exit_status() == 0
