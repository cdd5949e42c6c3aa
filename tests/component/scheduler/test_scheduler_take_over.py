"""Leaders die, step down and lose their broker; no request is lost or run twice."""

from __future__ import annotations

import asyncio

from headrace.bus.jetstream import JetStreamBus
from headrace.clock import SystemClock
from headrace.testing.nats_server import NatsServer
from headrace_scheduler.machine.state_machine import Leadership, Machine
from headrace_scheduler.runtime.leader import Leader
from headrace_scheduler.runtime.metrics_observer import MetricsObserver
from helpers.eventually import eventually
from helpers.running_scheduler import scheduler, settings, start_scheduler
from helpers.scheduler_actors import MODEL, GatewayActor, WorkerActor, find, is_gone, unsettled


async def test_a_standby_adopts_what_runs_and_dispatches_what_waits(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor
) -> None:
    worker = await WorkerActor(bus, "worker-1", slots=1).start()
    first = await start_scheduler(nats_url, "first")
    await eventually(lambda: first.service.leads(MODEL))
    async with scheduler(nats_url, "second") as second:
        await gateway.submit("running")
        await eventually(lambda: "running" in worker.running)
        await gateway.submit("waiting")
        await first.kill()
        await eventually(lambda: second.service.leads(MODEL))
        await eventually(lambda: _runs(bus, "running"))
        await worker.finish("running")
        await gateway.settle("running")
        await eventually(lambda: "waiting" in worker.running)
        assert len(worker.attempts("running")) == 1
        assert worker.attempts("waiting")[0] > worker.attempts("running")[0]
        await gateway.settle("waiting")
    assert await unsettled(bus) == []
    await worker.die()


async def test_a_worker_that_died_with_its_leader_costs_a_pause(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    other = await WorkerActor(bus, "worker-2", slots=1).start()
    first = await start_scheduler(nats_url, "first")
    await gateway.submit("a")
    await eventually(lambda: "a" in worker.running or "a" in other.running)
    ran, idle = (worker, other) if "a" in worker.running else (other, worker)
    gateway.relayed["a"] = [4, 5]
    attempt = ran.running["a"].attempt
    await first.kill()
    await ran.die()
    async with scheduler(nats_url, "second"):
        await eventually(lambda: "a" in idle.running)
        assert list(idle.running["a"].progress[0].output_ids) == [4, 5]
        assert idle.running["a"].attempt > attempt
        await gateway.settle("a")
    assert await unsettled(bus) == []
    await idle.die()


async def test_what_was_settled_without_a_leader_is_not_run_again(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    first = await start_scheduler(nats_url, "first")
    await gateway.submit("a")
    await eventually(lambda: "a" in worker.running)
    await first.kill()
    await worker.finish("a")
    del gateway.relayed["a"]
    async with scheduler(nats_url, "second"):
        await gateway.settle("a")
        await eventually(lambda: is_gone(bus, "a"))
        assert len(worker.attempts("a")) == 1
    assert await unsettled(bus) == []


async def test_a_leader_that_stops_hands_over_without_waiting_for_its_lease(
    nats_url: str, bus: JetStreamBus, worker: WorkerActor
) -> None:
    first = await start_scheduler(nats_url, "first", lease_ttl_s=60)
    await eventually(lambda: first.service.leads(MODEL))
    async with scheduler(nats_url, "second", lease_ttl_s=60) as second:
        await first.stop()
        await eventually(lambda: second.service.leads(MODEL), within_s=2)


async def test_a_leader_whose_lease_may_have_run_out_ends_nothing(
    bus: JetStreamBus, gateway: GatewayActor
) -> None:
    clock, is_ours = SystemClock(), True
    now_s = clock.monotonic_s()
    leadership = Leadership("frozen", MODEL, 1, now_s, now_s)
    machine = Machine(leadership, settings(), MetricsObserver(MODEL))
    leader = Leader(machine, bus, settings(), clock, lambda: is_ours)
    leading = asyncio.create_task(leader.run())
    await gateway.submit("a", patience_s=0.5)
    await eventually(lambda: machine.find("a") is not None)
    is_ours = False
    await eventually(leading.done)
    assert isinstance(leading.exception(), ExceptionGroup)
    assert gateway.ended == {}, "its successor may run what it takes for waiting"


async def test_a_leader_that_stepped_down_leads_again_when_it_can(
    nats: NatsServer, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats.url) as only:
        await eventually(lambda: only.service.leads(MODEL))
        await nats.kill()
        await eventually(lambda: not only.service.leads(MODEL), within_s=10)
        await nats.start()
        await eventually(lambda: only.service.leads(MODEL), within_s=10)
        await eventually(lambda: bus.connected)
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running, within_s=10)
        await gateway.settle("a")
    assert await unsettled(bus) == []


async def test_a_broker_that_dies_and_returns_loses_no_request(
    nats: NatsServer, bus: JetStreamBus, gateway: GatewayActor
) -> None:
    worker = await WorkerActor(bus, "worker-1", slots=1).start()
    async with scheduler(nats.url):
        await gateway.submit("running")
        await eventually(lambda: "running" in worker.running)
        await gateway.submit("waiting")
        await nats.kill()
        await nats.start()
        await eventually(lambda: bus.connected)
        await eventually(lambda: _runs(bus, "running"), within_s=10)
        await worker.finish("running")
        await gateway.settle("running")
        await eventually(lambda: "waiting" in worker.running, within_s=10)
        assert len(worker.attempts("running")) == 1
        await gateway.settle("waiting")
    assert await unsettled(bus) == []
    await worker.die()


async def _runs(bus: JetStreamBus, request_id: str) -> bool:
    found = await find(bus, request_id)
    return found.found and found.running
