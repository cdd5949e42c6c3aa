"""Whatever happens in whatever order: one end for each request, no gap, nothing left held."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import (
    BusDown,
    Command,
    Dispatch,
    ParkOnWorker,
    SendNotice,
    WeightsChanged,
)
from helpers.scheduler_ends import gateways_die_at_ends, leader_dies
from helpers.scheduler_gateways import Life
from helpers.scheduler_models import WorkerModel
from helpers.scheduler_quota import grant_quota, run_out_of_quota
from helpers.scheduler_world import World
from helpers.usage_ledger import DEATHS

NEVER = float("inf")
MANY = 40
"""Requests; a new leader admits all that it reads, and all of them have to end."""
PRIORITIES = st.sampled_from(["interactive", "standard", "bulk"])
BEGINNINGS = st.integers(0, 2)
TENANTS = st.sampled_from(["", "a", "b"])


def tight_settings(max_attempts: int) -> SchedulerSettings:
    """Small bounds, so that they are met."""
    return SchedulerSettings(
        max_attempts=max_attempts,
        max_preemptions=2,
        max_waiting=16,
        max_orphans=6,
        max_tenants=1,
        prefix_wait_s_per_token=0.02,
    )


class RandomEvents(RuleBasedStateMachine):
    """Rules are what may happen; the world checks what must hold."""

    @initialize(
        slots=st.lists(st.integers(2, 4), min_size=1, max_size=3),
        max_attempts=st.sampled_from([1000, 3]),
    )
    def some_workers(self, slots: list[int], max_attempts: int) -> None:
        self.world = World(tight_settings(max_attempts))
        self.world.apply(WeightsChanged({"a": 3.0}))
        for i, n in enumerate(slots):
            self.world.workers[f"w{i}"] = WorkerModel(f"w{i}", n)

    def pick_worker(self, data: st.DataObject) -> WorkerModel:
        return data.draw(st.sampled_from(list(self.world.workers.values())))

    def pick_command(self, data: st.DataObject) -> Command:
        return data.draw(st.sampled_from(self.world.pending))

    def gateways(self, life: Life) -> list[str]:
        return [i for i, g in self.world.gateways.items() if g.life is life]

    @rule(
        n=st.integers(1, 2),
        priority=PRIORITIES,
        attachable=st.booleans(),
        tenant=TENANTS,
        beginning=BEGINNINGS,
    )
    def a_request_arrives(
        self, n: int, priority: str, attachable: bool, tenant: str, beginning: int
    ) -> None:
        name = f"r{len(self.world.clients)}"
        self.world.submit(
            name, n, priority, attachable=attachable, tenant=tenant, beginning=beginning
        )

    @rule(
        priority=PRIORITIES,
        attachable=st.booleans(),
        time_s=st.sampled_from([1.0, 6.0]),
        patience_s=st.sampled_from([0.4, 3.0, NEVER]),
    )
    def a_request_with_little_time_arrives(
        self, priority: str, attachable: bool, time_s: float, patience_s: float
    ) -> None:
        name = f"r{len(self.world.clients)}"
        self.world.submit(
            name, 1, priority, attachable=attachable, time_s=time_s, patience_s=patience_s
        )

    @rule(n=st.integers(1, 2), priority=PRIORITIES, time_s=st.sampled_from([6.0, NEVER]))
    def a_background_request_arrives(self, n: int, priority: str, time_s: float) -> None:
        name = f"r{len(self.world.clients)}"
        self.world.submit(name, n, priority, attachable=True, detached=True, time_s=time_s)

    @rule(n=st.integers(1, 2), priority=PRIORITIES, time_s=st.sampled_from([6.0, NEVER]))
    def a_dead_letter_is_resent(self, n: int, priority: str, time_s: float) -> None:
        name = f"r{len(self.world.clients)}"
        self.world.submit(
            name, n, priority, attachable=True, detached=True, resent=True, time_s=time_s
        )

    @precondition(lambda self: len(self.world.stored) < MANY)
    @rule(priority=PRIORITIES, count=st.integers(2, 8), tenant=TENANTS)
    def many_requests_arrive(self, priority: str, count: int, tenant: str) -> None:
        for _ in range(count):
            self.world.submit(f"r{len(self.world.clients)}", 1, priority, tenant=tenant)

    # Gateways

    @rule(data=st.data())
    def a_gateway_dies(self, data: st.DataObject) -> None:
        there = [i for i, g in self.world.gateways.items() if g.life is not Life.GONE]
        self.world.kill_gateway(data.draw(st.sampled_from(there)))

    @precondition(lambda self: len(self.gateways(Life.LIVES)) > 1)
    @rule(data=st.data())
    def a_gateway_freezes(self, data: st.DataObject) -> None:
        gateway_id = data.draw(st.sampled_from(self.gateways(Life.LIVES)))
        self.world.gateways[gateway_id].life = Life.FROZEN

    @precondition(lambda self: self.gateways(Life.FROZEN))
    @rule(data=st.data())
    def a_frozen_gateway_goes_on(self, data: st.DataObject) -> None:
        self.world.thaw(data.draw(st.sampled_from(self.gateways(Life.FROZEN))))

    @precondition(lambda self: len(self.gateways(Life.LIVES)) > 1)
    @rule(data=st.data())
    def a_gateway_must_stop(self, data: st.DataObject) -> None:
        self.world.drain_gateway(data.draw(st.sampled_from(self.gateways(Life.LIVES))))

    @precondition(lambda self: len(self.gateways(Life.LIVES)) > 1)
    @rule(data=st.data())
    def a_gateway_is_about_to_leave(self, data: st.DataObject) -> None:
        self.world.draining.add(data.draw(st.sampled_from(self.gateways(Life.LIVES))))
        self.world.beat()

    @precondition(lambda self: self.gateways(Life.LIVES))
    @rule(data=st.data())
    def a_gateway_fills_or_has_room_again(self, data: st.DataObject) -> None:
        self.world.full ^= {data.draw(st.sampled_from(self.gateways(Life.LIVES)))}

    @precondition(lambda self: self.gateways(Life.LEAVING))
    @rule(data=st.data())
    def a_gateway_leaves(self, data: st.DataObject) -> None:
        self.world.leave(data.draw(st.sampled_from(self.gateways(Life.LEAVING))))

    @precondition(lambda self: any(c.away for c in self.world.clients.values()))
    @rule(data=st.data(), outcome=st.sampled_from(["received", "unanswered", "lost"]))
    def a_client_comes_back(self, data: st.DataObject, outcome: str) -> None:
        away = [i for i, c in self.world.clients.items() if c.away]
        gateway_id = data.draw(st.sampled_from(self.gateways(Life.LIVES)))
        self.world.come_back(data.draw(st.sampled_from(away)), gateway_id, outcome)

    @precondition(lambda self: self.gateways(Life.FROZEN))
    @rule(data=st.data())
    def a_client_of_a_suspended_gateway_leaves_it(self, data: st.DataObject) -> None:
        frozen = self.gateways(Life.FROZEN)
        clients = self.world.clients.items()
        readers = [(i, c) for i, c in clients if c.is_present and c.attachable and not c.detached]
        stuck = [i for i, c in readers if c.gateway in frozen]
        if stuck:
            self.world.give_up(data.draw(st.sampled_from(stuck)))

    # Workers

    @rule()
    def for_a_moment_all_goes_well(self) -> None:
        self.world.carry_out_all()

    @rule(data=st.data(), full=st.booleans())
    def a_worker_reports(self, data: st.DataObject, full: bool) -> None:
        self.world.report(self.pick_worker(data), full=full)

    @rule(data=st.data())
    def a_report_is_late_or_lost(self, data: st.DataObject) -> None:
        self.world.delay_report(self.pick_worker(data))

    @rule(data=st.data())
    def a_late_report_comes(self, data: st.DataObject) -> None:
        worker = self.pick_worker(data)
        if worker.late:
            self.world.deliver_late_report(worker)

    @rule(data=st.data(), beginning=BEGINNINGS, blocks=st.integers(0, 2), full=st.booleans())
    def a_worker_reports_its_prefixes(
        self, data: st.DataObject, beginning: int, blocks: int, full: bool
    ) -> None:
        self.world.report_prefixes(self.pick_worker(data), beginning, blocks, full)

    @rule(data=st.data())
    def a_worker_steps(self, data: st.DataObject) -> None:
        self.world.step(self.pick_worker(data))

    @rule(data=st.data(), error=st.sampled_from(["", "the engine fell over"]))
    def a_worker_parks(self, data: st.DataObject, error: str) -> None:
        worker = self.pick_worker(data)
        if worker.running:
            self.world.park(worker, data.draw(st.sampled_from(list(worker.running))), error)

    @rule(data=st.data())
    def a_stream_breaks(self, data: st.DataObject) -> None:
        worker = self.pick_worker(data)
        if worker.running:
            self.world.lose_stream(worker, data.draw(st.sampled_from(list(worker.running))))

    @rule(data=st.data(), reports=st.booleans())
    def a_gateway_runs_out_of_quota(self, data: st.DataObject, reports: bool) -> None:
        worker = self.pick_worker(data)
        if worker.running:
            request_id = data.draw(st.sampled_from(list(worker.running)))
            run_out_of_quota(self.world, worker, request_id, reports=reports)

    @precondition(lambda self: any(c.waits_for_quota for c in self.world.clients.values()))
    @rule(data=st.data(), reports=st.booleans())
    def quota_is_granted(self, data: st.DataObject, reports: bool) -> None:
        waiting = [i for i, c in self.world.clients.items() if c.waits_for_quota]
        grant_quota(self.world, data.draw(st.sampled_from(waiting)), reports=reports)

    @rule(data=st.data())
    def a_worker_falls_silent_or_speaks_again(self, data: st.DataObject) -> None:
        worker = self.pick_worker(data)
        worker.alive = not worker.alive

    @rule(data=st.data())
    def a_worker_drains_and_then_leaves(self, data: st.DataObject) -> None:
        worker = self.pick_worker(data)
        if worker.draining and worker.alive:
            self.world.retire(worker)
        worker.draining = True

    # Commands

    @precondition(lambda self: self.world.pending)
    @rule(data=st.data())
    def a_command_is_carried_out(self, data: st.DataObject) -> None:
        self.world.carry_out(self.pick_command(data))

    @precondition(
        lambda self: any(isinstance(c, Dispatch | SendNotice) for c in self.world.pending)
    )
    @rule(data=st.data(), arrives=st.booleans())
    def an_answer_gets_lost(self, data: st.DataObject, arrives: bool) -> None:
        calls = [c for c in self.world.pending if isinstance(c, Dispatch | SendNotice)]
        self.world.lose(data.draw(st.sampled_from(calls)), arrives=arrives)

    @precondition(lambda self: any(isinstance(c, ParkOnWorker) for c in self.world.pending))
    @rule(data=st.data())
    def a_command_to_a_worker_gets_lost(self, data: st.DataObject) -> None:
        parks = [c for c in self.world.pending if isinstance(c, ParkOnWorker)]
        self.world.pending.remove(data.draw(st.sampled_from(parks)))

    # Callers, time, leaders

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def a_client_leaves(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(list(self.world.clients)))
        if self.world.is_connected(request_id) and not self.world.clients[request_id].detached:
            self.world.settle(request_id, code=1)

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def an_operator_cancels(self, data: st.DataObject) -> None:
        self.world.cancel(data.draw(st.sampled_from(list(self.world.clients))))

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def the_bus_was_away(self) -> None:
        self.world.apply(BusDown())

    @rule(has_listened=st.booleans())
    def another_leader_takes_over(self, has_listened: bool) -> None:
        self.world.new_leader(has_listened=has_listened)

    @rule(when=st.sampled_from(DEATHS))
    def the_leader_dies_on_its_way_to_an_acknowledgement(self, when: str) -> None:
        leader_dies(self.world, when)

    @rule()
    def gateways_die_before_they_settle(self) -> None:
        gateways_die_at_ends(self.world)

    @precondition(lambda self: self.world.unconfirmed)
    @rule()
    def gateways_settle_again(self) -> None:
        self.world.settle_again()

    @rule(count=st.integers(1, 3))
    def the_leader_reads_on(self, count: int) -> None:
        self.world.read_on(count)

    @invariant()
    def no_request_is_acknowledged_twice_by_one_leader(self) -> None:
        assert all(n == 1 for n in self.world.acknowledged.values())

    def teardown(self) -> None:
        self.world.come_to_rest()
        self.world.check_end()


def test_whatever_happens_every_request_has_one_end() -> None:
    run_state_machine_as_test(
        RandomEvents,
        settings=settings(
            max_examples=100,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
