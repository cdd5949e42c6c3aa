"""Bulk work never holds up other requests, in whatever order things happen, and still ends."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import Dispatch, ParkOnWorker
from helpers.scheduler_models import WorkerModel
from helpers.scheduler_world import LENGTH, World

WORKERS = st.lists(st.integers(2, 4), min_size=1, max_size=3)
URGENT = st.sampled_from(["interactive", "standard"])
ROUNDS = 40
"""Of 0.1 s: a park that is lost is sent again after 1 s, a dispatch after 2 s."""
BEAT_S = 0.1


def full_of_bulk(slots: list[int], sizes: list[int], **fields: float) -> World:
    """Return a world in which as many bulk requests run as fit, and the others wait."""
    world = World(SchedulerSettings.model_validate({"gateway_silence_s": 1e9} | fields))
    for number, size in enumerate(slots):
        world.workers[f"w{number}"] = WorkerModel(f"w{number}", size)
    world.report_all(full=True)
    for number, size in enumerate(sizes):
        world.submit(f"bulk {number}", size, "bulk")
    world.carry_out_all()
    return world


def is_running(world: World, request_id: str) -> bool:
    return any(request_id in worker.running for worker in world.workers.values())


def bulk_slots(worker: WorkerModel) -> int:
    return sum(r.n for i, r in worker.running.items() if i.startswith("bulk"))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), slots=WORKERS, priorities=st.lists(URGENT, min_size=1, max_size=6))
def test_urgent_requests_start_while_bulk_ones_hold_every_slot(
    data: st.DataObject, slots: list[int], priorities: list[str]
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 2), min_size=sum(slots), max_size=sum(slots) + 2))
    world = full_of_bulk(slots, sizes)
    urgent = [f"urgent {number}" for number in range(min(len(priorities), sum(slots) - 1))]
    lost = 0
    for request_id, priority in zip(urgent, priorities, strict=False):
        world.submit(request_id, 1, priority)
        for _ in range(data.draw(st.integers(0, 4))):
            if world.pending:
                command = world.pending[data.draw(st.integers(0, len(world.pending) - 1))]
                if isinstance(command, ParkOnWorker | Dispatch) and data.draw(st.booleans()):
                    lost += 1
                    world.lose(command, arrives=data.draw(st.booleans()))
                else:
                    world.carry_out(command)
            world.report(world.workers[data.draw(st.sampled_from(sorted(world.workers)))])
    # Why no step: so no bulk request ends.
    for _ in range(ROUNDS):
        world.carry_out_all()
        if all(is_running(world, request_id) for request_id in urgent):
            break
        world.pass_time(BEAT_S)
    assert [i for i in urgent if not is_running(world, i)] == []
    if not lost:  # Else a worker counts as full until it reports, and another parks for it.
        assert world.observer.counts["preempted"] <= len(urgent)
    world.come_to_rest()
    world.check_end()
    assert all(client.seen == list(range(LENGTH)) for client in world.clients.values())


@settings(max_examples=50, deadline=None)
@given(slots=WORKERS, count=st.integers(1, 8), priorities=st.lists(URGENT, min_size=1, max_size=5))
def test_one_is_parked_for_each_that_finds_no_slot_and_no_more_however_long_it_takes(
    slots: list[int], count: int, priorities: list[str]
) -> None:
    world = full_of_bulk(slots, [1] * count)
    free = max(0, sum(slots) - count)
    urgent = priorities[: sum(slots) - 1]
    for number, priority in enumerate(urgent):
        world.submit(f"urgent {number}", 1, priority)
    for _ in range(5):  # What was commanded is still on its way.
        world.pass_time(BEAT_S)
    assert world.observer.counts["preempted"] == max(0, len(urgent) - free)
    for _ in range(5):
        world.carry_out_all()
        world.pass_time(BEAT_S)
    assert world.observer.counts["preempted"] == max(0, len(urgent) - free)
    world.come_to_rest()
    world.check_end()


@settings(max_examples=25, deadline=None)
@given(
    slots=WORKERS,
    sizes=st.lists(st.integers(1, 2), min_size=1, max_size=5),
    priority=URGENT,
    max_preemptions=st.integers(0, 3),
)
def test_bulk_requests_end_under_endless_urgent_load_and_keep_their_share_of_the_slots(
    slots: list[int], sizes: list[int], priority: str, max_preemptions: int
) -> None:
    share, ageing_s = 0.25, 1.0
    world = full_of_bulk(
        slots, sizes, floor_share=share, ageing_s=ageing_s, max_preemptions=max_preemptions
    )
    floor = max(1, round(share * sum(slots) + 0.49))
    bulk = [f"bulk {number}" for number in range(len(sizes))]
    submitted, rounds = 0, 0
    while any(world.clients[request_id].open for request_id in bulk):
        while submitted - ended_urgent(world) < 2 * sum(slots):
            world.submit(f"urgent {submitted}", 1, priority)
            submitted += 1
        world.carry_out_all()
        world.pass_time(0.5)
        world.carry_out_all()
        if rounds:  # By now those that ran first made way.
            assert sum(map(bulk_slots, world.workers.values())) <= floor + max(sizes)
        for worker in world.workers.values():
            world.step(worker)
        rounds += 1
        assert rounds < 30 * len(sizes), "bulk requests starve"
    assert world.observer.counts["preempted"] <= submitted
    world.come_to_rest()
    world.check_end()


def ended_urgent(world: World) -> int:
    return sum(i.startswith("urgent") and not c.open for i, c in world.clients.items())
