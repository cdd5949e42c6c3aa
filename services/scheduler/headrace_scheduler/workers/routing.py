"""Which worker a waiting request is better left to, for what that one holds of its prompt."""

from __future__ import annotations

from headrace.internal.v1.reports_pb2 import PrefixReport
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.request.prefixes import Held, PrefixDirectory, prefix_block_names
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.worker import Worker

LOOK_PAST = 8
"""Requests left to others while one worker's batch is formed; so its cost does not grow with the
queue."""


class Routing:
    """Holds a request back for the worker that has the longest prefix of its prompt.

    A request is held back only while such a worker is open and its load exceeds the fleet's by
    no more than `prefix_load_slack`, and no longer than the prefill of that prefix would take
    elsewhere: so a worker that has no room, or does not answer, costs no more than it could have
    saved. The order within a lane stays: a worker skips requests that are held back for another.
    """

    def __init__(self, fleet: Fleet, settings: SchedulerSettings) -> None:
        self._fleet, self._settings = fleet, settings
        self._directory = PrefixDirectory()
        self._left_to_pass = 0
        self._most_load = 0.0
        """Of a worker that is worth waiting for."""
        self.next_due_s = float("inf")
        """When the first of those that are kept goes to anybody."""

    def apply_report(self, report: PrefixReport) -> None:
        """From workers that have not been heard, what they hold is forgotten with the next full
        report at the latest."""
        if self._settings.prefix_routing and self._fleet.get(report.worker_id) is not None:
            self._directory.apply_report(report)

    def forget(self, worker_id: str) -> None:
        self._directory.forget(worker_id)

    def begin(self) -> None:
        """Another round of dispatches is planned."""
        self.next_due_s = float("inf")

    def begin_worker(self) -> None:
        """Of that round, another worker's batch."""
        self._left_to_pass = LOOK_PAST if self._directory else 0
        self._most_load = self._fleet.load + self._settings.prefix_load_slack

    def is_for_another(self, request: Request, worker: Worker, *, now_s: float) -> bool:
        """Whether this worker is to pass over a request that it could take.

        While it is kept, which is not long, neither who holds its beginning is looked up again nor
        how loaded they are; who is gone, or holds it no more, is seen.
        """
        if not self._left_to_pass:
            return False
        if request.prefix_wait_until_s is None and not self._keep(request, worker, now_s):
            return False
        until_s = request.prefix_wait_until_s
        if until_s is None or now_s >= until_s or not _is_elsewhere(request.prefix_match, worker):
            return False
        self.next_due_s = min(self.next_due_s, until_s)
        self._left_to_pass -= 1
        return True

    def _keep(self, request: Request, worker: Worker, now_s: float) -> bool:
        """Whether it is kept for those that hold its beginning, from now on."""
        held = self._held(request)
        if not _is_elsewhere(held, worker):
            return False
        if not any(map(self._may_be_waited_for, held.worker_ids)):
            return False
        request.prefix_match = held
        request.prefix_wait_until_s = now_s + held.tokens * self._settings.prefix_wait_s_per_token
        return True

    def tokens_at(self, request: Request, worker: Worker) -> int:
        """Of the prompt, how many the worker holds if none holds more; 0 if another does."""
        if not self._directory:
            return 0
        held = self._held(request)
        return held.tokens if worker.worker_id in held.worker_ids else 0

    def _held(self, request: Request) -> Held:
        if request.prefix_blocks is None:
            request.prefix_blocks = prefix_block_names(request.record)
        return self._directory.longest(request.prefix_blocks)

    def _may_be_waited_for(self, worker_id: str) -> bool:
        worker = self._fleet.get(worker_id)
        return worker is not None and worker.is_open and worker.load <= self._most_load

    def check_integrity(self) -> None:
        self._directory.check_integrity()


def _is_elsewhere(held: Held, worker: Worker) -> bool:
    """Whether somebody holds it, and not this worker."""
    return bool(held.worker_ids) and worker.worker_id not in held.worker_ids
