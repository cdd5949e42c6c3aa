"""Counts and logs the changes of state of one model's requests."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from prometheus_client import Counter

from headrace_scheduler.base import metrics
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.state.observer import Happening

log = logging.getLogger(__name__)

_BY_REASON: Mapping[Happening, Counter] = {
    "returned": metrics.returned,
    "orphaned": metrics.orphaned,
    "ended": metrics.ended,
    "abandoned": metrics.abandoned,
}
_BY_LANE: Mapping[Happening, Counter] = {
    "preempted": metrics.preempted,
    "adopted": metrics.adopted,
}


class MetricsObserver:
    """Counts all but probes, which gateways count themselves; logs batches at debug, and what
    went wrong at info."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._moves: dict[tuple[str, str, str], Counter] = {}
        """Kept because looking one up takes longer than counting."""

    def moved(self, request: Request, before: str, after: str) -> None:
        if request.is_probe:
            return
        if before == "new":
            metrics.submitted.labels(self._model, request.lane).inc()
        key = request.lane, before, after
        counter = self._moves.get(key)
        if counter is None:
            counter = self._moves[key] = metrics.moved.labels(self._model, *key)
        counter.inc()

    def happened(self, what: Happening, request: Request, cause: str) -> None:
        if request.is_probe:
            return
        if what in _BY_REASON:
            _BY_REASON[what].labels(self._model, request.lane, cause).inc()
        else:
            _BY_LANE[what].labels(self._model, request.lane).inc()
        facts = {"model": self._model, "request_id": request.request_id, "cause": cause}
        log.info(f"request.{what}", extra=facts)

    def dispatched(self, worker_id: str, batch: Sequence[Request], now_s: float) -> None:
        batch = [request for request in batch if not request.is_probe]
        if not batch:
            return
        metrics.dispatches.labels(self._model).inc()
        metrics.batch_requests.labels(self._model).observe(len(batch))
        for request in batch:
            metrics.dispatched.labels(self._model, request.lane).inc()
            waited_s = now_s - request.queued_s
            metrics.queue_wait_s.labels(self._model, request.lane).observe(waited_s)
        if log.isEnabledFor(logging.DEBUG):
            waited_s = round(now_s - min(request.queued_s for request in batch), 4)
            facts = {"worker_id": worker_id, "requests": len(batch), "waited_s": waited_s}
            log.debug("batch.dispatched", extra={"model": self._model, **facts})

    def prefix_held(self, request: Request, tokens: int) -> None:
        if not request.is_probe:
            metrics.prefix_routed.labels(self._model, request.lane).inc()
            metrics.prefix_routed_tokens.labels(self._model, request.lane).inc(tokens)

    def settled(self, request: Request, code: int) -> None:
        if not request.is_probe:
            metrics.settled.labels(self._model, request.lane, str(code)).inc()

    def worker_lost(self, worker_id: str, requests: int) -> None:
        metrics.lost_workers.labels(self._model).inc()
        facts = {"model": self._model, "worker_id": worker_id, "requests": requests}
        log.info("worker.gone", extra=facts)

    def ignored(self, what: str) -> None:
        metrics.ignored.labels(self._model, what).inc()
