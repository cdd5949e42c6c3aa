"""The routing policy: the order of workers, and which requests are held back for another.

A policy of another kind goes here: `Dispatcher` forms a batch for each worker in the order of
`Routing.ranked`, of the requests that `Routing.is_for_another` does not hold back.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.internal.v1.reports_pb2 import PrefixReport
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.request.prefixes import PrefixDirectory, PrefixMatch, prefix_block_names
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.worker import Worker

MAX_SKIPPED = 8
"""Requests skipped while one worker's batch is formed; so its cost does not grow with the queue."""


class Routing:
    """Serves the least loaded worker first, but holds a request back for the worker that has the
    longest prefix of its prompt.

    A request is held back only while such a worker is open and its load exceeds the fleet's by
    no more than `prefix_load_slack`, and no longer than the prefill of that prefix would take
    elsewhere: so a worker that has no room, or does not answer, costs no more than it could have
    saved. The order within a lane stays: a worker skips requests that are held back for another.
    """

    def __init__(self, fleet: Fleet, settings: SchedulerSettings) -> None:
        self._fleet, self._settings = fleet, settings
        self._directory = PrefixDirectory()
        self._skips_left = 0
        self._max_load = 0.0
        """Of a worker that is worth waiting for."""
        self.next_due_s = float("inf")
        """When the first request that was skipped in this round may go to any worker."""

    def apply_report(self, report: PrefixReport) -> None:
        """Record what a worker holds; reports of workers that are not in the fleet are ignored."""
        if self._settings.prefix_routing and self._fleet.get(report.worker_id) is not None:
            self._directory.apply_report(report)

    def forget(self, worker_id: str) -> None:
        self._directory.forget(worker_id)

    def begin_round(self) -> None:
        """Begin to plan a round of dispatches."""
        self.next_due_s = float("inf")

    def ranked(self, workers: Iterable[Worker]) -> list[Worker]:
        """Return workers in the order in which they get their batches: the least loaded first."""
        return sorted(workers, key=lambda w: (w.load, w.worker_id))

    def begin_worker(self) -> None:
        """Begin to form another worker's batch in this round."""
        self._skips_left = MAX_SKIPPED if self._directory else 0
        self._max_load = self._fleet.load + self._settings.prefix_load_slack

    def is_for_another(self, request: Request, worker: Worker, *, now_s: float) -> bool:
        """Return whether this worker must skip a request that it could take.

        While a request is held back, which is not long, neither its prefix nor the load of its
        holders is looked up again; only whether the worker still holds the prefix is.
        """
        if not self._skips_left:
            return False
        if request.prefix_wait_until_s is None and not self._hold_back(request, worker, now_s):
            return False
        until_s = request.prefix_wait_until_s
        if until_s is None or now_s >= until_s or not _is_elsewhere(request.prefix_match, worker):
            return False
        self.next_due_s = min(self.next_due_s, until_s)
        self._skips_left -= 1
        return True

    def _hold_back(self, request: Request, worker: Worker, now_s: float) -> bool:
        """Hold a request back for those that have its prefix; return whether it is."""
        match = self._match(request)
        if not _is_elsewhere(match, worker):
            return False
        if not any(map(self._is_worth_waiting_for, match.worker_ids)):
            return False
        request.prefix_match = match
        request.prefix_wait_until_s = now_s + match.tokens * self._settings.prefix_wait_s_per_token
        return True

    def matched_tokens(self, request: Request, worker: Worker) -> int:
        """Return how many prompt tokens the worker holds; 0 if another worker holds more."""
        if not self._directory:
            return 0
        match = self._match(request)
        return match.tokens if worker.worker_id in match.worker_ids else 0

    def _match(self, request: Request) -> PrefixMatch:
        if request.prefix_blocks is None:
            request.prefix_blocks = prefix_block_names(request.record)
        return self._directory.longest_match(request.prefix_blocks)

    def _is_worth_waiting_for(self, worker_id: str) -> bool:
        worker = self._fleet.get(worker_id)
        return worker is not None and worker.is_open and worker.load <= self._max_load

    def check_integrity(self) -> None:
        self._directory.check_integrity()


def _is_elsewhere(match: PrefixMatch, worker: Worker) -> bool:
    """Return whether other workers hold it and this one does not."""
    return bool(match.worker_ids) and worker.worker_id not in match.worker_ids
