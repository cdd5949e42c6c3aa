"""Models that are removed: by hand, by the mesh that configured them, to the end of their lanes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from headrace.bus import Bus
from headrace.bus.jetstream import JetStreamBus
from headrace.errors import ModelNotFound
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.rpc.status import from_status
from headrace.supervisor.model_removal import configured_models, remove_model, remove_unlisted
from headrace.supervisor.state.failures import ModelServed
from headrace_scheduler.runtime.election import FINISHED_S, POLL_S
from helpers.eventually import eventually
from helpers.running_scheduler import scheduler
from helpers.scheduler_actors import MODEL, GatewayActor, WorkerActor, is_found, unsettled


async def configure(bus: JetStreamBus, *models: str, by: str = "") -> None:
    for model in models:
        card = ModelCard(model=model, configured_by=by)
        await bus.put_card(model, card.SerializeToString())


async def names(bus: JetStreamBus) -> set[str]:
    return {card.model for card in await configured_models(bus)}


async def test_what_waits_for_a_removed_model_ends_and_then_its_card_goes(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor
) -> None:
    await configure(bus, MODEL)
    async with scheduler(nats_url) as process, scheduler(nats_url) as standby:
        await gateway.submit("a")
        await eventually(lambda: is_found(bus, "a"))
        await remove_model(bus, MODEL, force=False)
        await eventually(lambda: "a" in gateway.ended)
        assert isinstance(from_status(gateway.ended["a"]), ModelNotFound)
        await eventually(lambda: _has_no_cards(bus), within_s=10)
        await eventually(lambda: not any(s.service.leads(MODEL) for s in (process, standby)))
        assert (process.service.why_not_ready, standby.service.why_not_ready) == (None, None)
        await configure(bus, MODEL)
        await eventually(lambda: any(s.service.leads(MODEL) for s in (process, standby)))
    assert await unsettled(bus) == []


async def test_what_an_earlier_mesh_left_in_the_lanes_of_a_removed_model_ends_too(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor
) -> None:
    await configure(bus, MODEL)
    await gateway.submit("a", detached=True)
    await gateway.submit("b", attachable=True)
    await gateway.die()
    await remove_model(bus, MODEL, force=True)
    async with scheduler(nats_url):
        await eventually(lambda: _has_no_cards(bus), within_s=15)
        kept = await bus.get_result("a")
        assert kept is not None, "a client may still fetch its result"
        error = from_status(ResultRecord.FromString(kept).outcome.error)
        assert isinstance(error, ModelNotFound)
    assert await unsettled(bus) == []


class SlowResults:
    """A bus that takes its time to store a result; all else is as quick as the broker."""

    def __init__(self, bus: Bus, store_s: float) -> None:
        self._bus, self._store_s = bus, store_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def put_result(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(self._store_s)
        await self._bus.put_result(*args, **kwargs)


async def test_the_card_of_a_removed_model_stays_until_the_ends_of_its_requests_are_stored(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor
) -> None:
    await configure(bus, MODEL)
    await gateway.submit("a", detached=True)
    await gateway.die()
    await remove_model(bus, MODEL, force=True)
    store_s = FINISHED_S + 2 * POLL_S + 1
    async with scheduler(nats_url, through=lambda own: cast(Bus, SlowResults(own, store_s))):
        await eventually(lambda: _has_no_cards(bus), within_s=15)
        assert await bus.get_result("a") is not None
    assert await unsettled(bus) == []


async def test_a_mesh_removes_what_it_has_configured_and_lists_no_more(
    bus: JetStreamBus, worker: WorkerActor
) -> None:
    await configure(bus, "listed", "gone", MODEL, by="mesh-1")
    await configure(bus, "others", by="mesh-2")
    await configure(bus, "nobodys")
    assert await remove_unlisted(bus, "mesh-1", ["listed"]) == ["gone"]
    assert await names(bus) == {"listed", "others", "nobodys", MODEL}, "a worker serves that one"


async def test_a_model_that_a_worker_serves_is_removed_by_force_alone(
    bus: JetStreamBus, worker: WorkerActor
) -> None:
    await configure(bus, MODEL)
    with pytest.raises(ModelServed, match=f"a worker serves {MODEL}"):
        await remove_model(bus, MODEL, force=False)
    assert await names(bus) == {MODEL}
    await remove_model(bus, MODEL, force=True)
    await worker.die()
    assert await names(bus) == set()
    with pytest.raises(ModelNotFound, match=f"no model '{MODEL}' is configured"):
        await remove_model(bus, MODEL, force=True)


async def test_a_model_is_removed_by_its_own_name_and_not_by_an_alias(bus: JetStreamBus) -> None:
    card = ModelCard(model="org/primary", aliases=["small"])
    await bus.put_card("org/primary", card.SerializeToString())
    with pytest.raises(ModelNotFound, match="'small' is an alias of 'org/primary'"):
        await remove_model(bus, "small", force=True)
    await remove_model(bus, "org/primary", force=True)
    assert await names(bus) == set()


async def _has_no_cards(bus: JetStreamBus) -> bool:
    return await bus.all_cards() == []
