"""Counts and logs the changes of state of one model's requests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec

from prometheus_client import Counter

from headrace_scheduler.base import metrics
from headrace_scheduler.request.live_request import PROBES

log = logging.getLogger(__name__)


P = ParamSpec("P")


def _skip_probes(
    method: Callable[Concatenate[MetricsObserver, str, P], None],
) -> Callable[Concatenate[MetricsObserver, str, P], None]:
    """Skip what happens to probes, which gateways count themselves."""

    def skip_probes(self: MetricsObserver, lane: str, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if lane != PROBES:
            method(self, lane, *args, **kwargs)

    return skip_probes


class MetricsObserver:
    """Counts all but probes; logs batches at debug, and what went wrong at info."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._moves: dict[tuple[str, str, str], Counter] = {}
        """Kept because looking one up takes longer than counting."""

    @_skip_probes
    def moved(self, priority: str, before: str, after: str) -> None:
        key = priority, before, after
        counter = self._moves.get(key)
        if counter is None:
            counter = self._moves[key] = metrics.moved.labels(self._model, *key)
        counter.inc()

    @_skip_probes
    def submitted(self, priority: str) -> None:
        metrics.submitted.labels(self._model, priority).inc()

    def dispatched(self, worker_id: str, waits_s: Sequence[tuple[str, float]]) -> None:
        waits_s = [each for each in waits_s if each[0] != PROBES]
        if not waits_s:
            return
        metrics.dispatches.labels(self._model).inc()
        metrics.batch_requests.labels(self._model).observe(len(waits_s))
        for priority, wait_s in waits_s:
            metrics.dispatched.labels(self._model, priority).inc()
            metrics.queue_wait_s.labels(self._model, priority).observe(wait_s)
        if log.isEnabledFor(logging.DEBUG):
            waited_s = round(max(wait_s for _, wait_s in waits_s), 4)
            facts = {"worker_id": worker_id, "requests": len(waits_s), "waited_s": waited_s}
            log.debug("batch.dispatched", extra={"model": self._model, **facts})

    @_skip_probes
    def prefix_held(self, priority: str, tokens: int) -> None:
        metrics.prefix_routed.labels(self._model, priority).inc()
        metrics.prefix_routed_tokens.labels(self._model, priority).inc(tokens)

    @_skip_probes
    def returned(self, priority: str, cause: str, request_id: str) -> None:
        metrics.returned.labels(self._model, priority, cause).inc()
        self._log("request.returned", request_id, cause)

    @_skip_probes
    def preempted(self, priority: str, request_id: str) -> None:
        metrics.preempted.labels(self._model, priority).inc()
        self._log("request.preempted", request_id, "interactive requests wait")

    @_skip_probes
    def adopted(self, priority: str, request_id: str) -> None:
        metrics.adopted.labels(self._model, priority).inc()
        self._log("request.adopted", request_id, "reported")

    @_skip_probes
    def orphaned(self, priority: str, cause: str, request_id: str) -> None:
        metrics.orphaned.labels(self._model, priority, cause).inc()
        self._log("request.orphaned", request_id, cause)

    @_skip_probes
    def ended(self, priority: str, reason: str, request_id: str) -> None:
        metrics.ended.labels(self._model, priority, reason).inc()
        self._log("request.ended", request_id, reason)

    @_skip_probes
    def settled(self, priority: str, code: int) -> None:
        metrics.settled.labels(self._model, priority, str(code)).inc()

    @_skip_probes
    def abandoned(self, priority: str, cause: str, request_id: str) -> None:
        metrics.abandoned.labels(self._model, priority, cause).inc()
        self._log("request.abandoned", request_id, cause)

    def worker_lost(self, worker_id: str, requests: int) -> None:
        metrics.lost_workers.labels(self._model).inc()
        facts = {"model": self._model, "worker_id": worker_id, "requests": requests}
        log.info("worker.gone", extra=facts)

    def ignored(self, what: str) -> None:
        metrics.ignored.labels(self._model, what).inc()

    def _log(self, event: str, request_id: str, cause: str) -> None:
        facts = {"model": self._model, "request_id": request_id, "cause": cause}
        log.info(event, extra=facts)
