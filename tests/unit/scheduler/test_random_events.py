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

from headrace_scheduler.events import Command, Dispatch, Notify, ParkOnWorker
from helpers.scheduler_models import WorkerModel
from helpers.scheduler_world import World

PRIORITIES = st.sampled_from(["interactive", "standard", "bulk"])


class RandomEvents(RuleBasedStateMachine):
    """Rules are what may happen; the world checks what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(slots=st.lists(st.integers(2, 4), min_size=1, max_size=3))
    def some_workers(self, slots: list[int]) -> None:
        for i, n in enumerate(slots):
            self.world.workers[f"w{i}"] = WorkerModel(f"w{i}", n)

    def pick_worker(self, data: st.DataObject) -> WorkerModel:
        return data.draw(st.sampled_from(list(self.world.workers.values())))

    def pick_command(self, data: st.DataObject) -> Command:
        return data.draw(st.sampled_from(self.world.pending))

    @rule(n=st.integers(1, 2), priority=PRIORITIES, attachable=st.booleans())
    def somebody_asks(self, n: int, priority: str, attachable: bool) -> None:
        self.world.submit(f"r{len(self.world.clients)}", n, priority, attachable=attachable)

    @rule(data=st.data())
    def a_gateway_dies(self, data: st.DataObject) -> None:
        living = [g for g, lives in self.world.heard.items() if lives]
        self.world.kill_gateway(data.draw(st.sampled_from(living)))

    @precondition(lambda self: any(c.away for c in self.world.clients.values()))
    @rule(data=st.data())
    def a_client_comes_back(self, data: st.DataObject) -> None:
        away = [i for i, c in self.world.clients.items() if c.away]
        living = [g for g, lives in self.world.heard.items() if lives]
        self.world.come_back(data.draw(st.sampled_from(away)), data.draw(st.sampled_from(living)))

    @rule(priority=PRIORITIES, count=st.integers(2, 8))
    def a_crowd_asks(self, priority: str, count: int) -> None:
        for _ in range(count):
            self.world.submit(f"r{len(self.world.clients)}", 1, priority)

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
            self.world.hear_late(worker)

    @rule(data=st.data())
    def a_worker_steps(self, data: st.DataObject) -> None:
        self.world.step(self.pick_worker(data))

    @precondition(lambda self: self.world.pending)
    @rule(data=st.data())
    def a_command_is_carried_out(self, data: st.DataObject) -> None:
        self.world.carry_out(self.pick_command(data))

    @precondition(lambda self: any(isinstance(c, Dispatch | Notify) for c in self.world.pending))
    @rule(data=st.data(), arrives=st.booleans())
    def an_answer_gets_lost(self, data: st.DataObject, arrives: bool) -> None:
        calls = [c for c in self.world.pending if isinstance(c, Dispatch | Notify)]
        self.world.lose(data.draw(st.sampled_from(calls)), arrives=arrives)

    @precondition(lambda self: any(isinstance(c, ParkOnWorker) for c in self.world.pending))
    @rule(data=st.data())
    def a_word_to_a_worker_gets_lost(self, data: st.DataObject) -> None:
        words = [c for c in self.world.pending if isinstance(c, ParkOnWorker)]
        self.world.pending.remove(data.draw(st.sampled_from(words)))

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

    @rule(data=st.data())
    def a_worker_falls_silent_or_speaks_again(self, data: st.DataObject) -> None:
        worker = self.pick_worker(data)
        worker.alive = not worker.alive

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def a_client_leaves(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(list(self.world.clients)))
        client = self.world.clients[request_id]
        if client.open and not client.away:
            self.world.settle(request_id, code=1)

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def an_operator_cancels(self, data: st.DataObject) -> None:
        self.world.cancel(data.draw(st.sampled_from(list(self.world.clients))))

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def another_leader_takes_over(self) -> None:
        self.world.new_leader()

    @invariant()
    def nobody_is_acknowledged_twice_by_one_leader(self) -> None:
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
