"""What must hold of a leader's commands in the scheduler's world."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from headrace_scheduler.machine.state_machine import Machine
from headrace_scheduler.request.live_request import Waiting
from headrace_scheduler.state.events import Dispatch, ParkOnWorker
from helpers.scheduler_models import Client, WorkerModel


def check_attempts(
    dispatch: Dispatch,
    dispatched: dict[str, int],
    workers: Collection[WorkerModel],
    clients: Mapping[str, Client],
) -> None:
    """Attempts only grow, and no two of them speak; `dispatched` has the newest of each."""
    for record in dispatch.message.requests:
        assert record.attempt > dispatched.get(record.request_id, 0), "attempts only grow"
        dispatched[record.request_id] = record.attempt
        client = clients[record.request_id]
        for worker in workers:
            running = worker.running.get(record.request_id)
            assert running is None or not client.open or running.attempt <= client.fence, (
                "two attempts that the gateway would both take from"
            )


class ParkingChecks:
    """Of bulk requests that one leader has parked for urgent ones."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._parked_for: dict[str, str] = {}
        """By victim, the request that is to start before it."""
        self._preempted: defaultdict[str, set[int]] = defaultdict(set)
        """Attempts that were to be parked."""

    def parked(self, command: ParkOnWorker, priority: str) -> None:
        """Bulk requests alone are parked, for a waiting more urgent one."""
        assert priority == "bulk"
        found = self._machine.find(command.request_id)
        if found is None or not found.is_running:
            return
        attempts = self._preempted[command.request_id]
        if command.attempt in attempts:  # Sent again: for any urgent request.
            assert self._machine.statistics()["waiting"]
            return
        urgent = self._machine.find(found.parked_for)
        assert urgent is not None
        assert isinstance(urgent.state, Waiting)
        assert urgent.lane in ("interactive", "standard")
        self._parked_for[command.request_id] = found.parked_for
        attempts.add(command.attempt)

    def dispatched(self, dispatch: Dispatch) -> None:
        for record in dispatch.message.requests:
            urgent = self._parked_for.pop(record.request_id, "")
            assert not self._waits(urgent), "a victim before the one it was parked for"

    def _waits(self, request_id: str) -> bool:
        found = self._machine.find(request_id)
        return found is not None and isinstance(found.state, Waiting)
