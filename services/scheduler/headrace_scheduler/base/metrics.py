"""Metrics of a scheduler. Labels: model, priority, reason; never ids."""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import Counter, Gauge, Histogram

from headrace.bus.subjects import PRIORITIES

_LANE = ["model", "priority"]
_WAIT_BUCKETS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
)  # fmt: skip
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)

waiting = Gauge("headrace_scheduler_waiting_requests", "Requests that wait in their lane.", _LANE)
running = Gauge("headrace_scheduler_running_requests", "Requests that run on a worker.", _LANE)
oldest_wait_s = Gauge(
    "headrace_scheduler_oldest_wait_seconds",
    "Time since the arrival of the oldest waiting request.",
    _LANE,
)
estimated_wait_s = Gauge(
    "headrace_scheduler_estimated_wait_seconds",
    "Estimated wait of a request that arrives now; NaN if unknown.",
    _LANE,
)
workers = Gauge("headrace_scheduler_workers", "Live workers.", ["model"])
free_slots = Gauge("headrace_scheduler_free_slots", "Free slots of all live workers.", ["model"])
leader = Gauge(
    "headrace_scheduler_leader", "1 while this process leads the model, else 0.", ["model"]
)
epoch = Gauge("headrace_scheduler_epoch", "Epoch of this process's last leadership.", ["model"])
take_overs = Counter("headrace_scheduler_take_overs", "Leaderships of this process.", ["model"])

moved = Counter(
    "headrace_scheduler_moved_requests",
    "Changes of state: new, held, waiting, running, lost, orphaned, ending, gone.",
    [*_LANE, "before", "after"],
)
submitted = Counter(
    "headrace_scheduler_submitted_requests", "Requests read from a lane, each once.", _LANE
)
dispatches = Counter("headrace_scheduler_dispatches", "Batches sent to workers.", ["model"])
dispatched = Counter("headrace_scheduler_dispatched_requests", "Attempts sent to workers.", _LANE)
batch_requests = Histogram(
    "headrace_scheduler_batch_requests", "Requests in a batch.", ["model"], buckets=_SIZE_BUCKETS
)
queue_wait_s = Histogram(
    "headrace_scheduler_queue_wait_seconds",
    "Time in the lane until dispatch.",
    _LANE,
    buckets=_WAIT_BUCKETS,
)
prefix_routed = Counter(
    "headrace_scheduler_prefix_routed_requests",
    "Requests dispatched to the worker with the longest cached prefix of their prompt.",
    _LANE,
)
prefix_routed_tokens = Counter(
    "headrace_scheduler_prefix_routed_tokens",
    "Prompt tokens of these that the worker had reported as cached.",
    _LANE,
)
returned = Counter(
    "headrace_scheduler_returned_requests",
    "Attempts that stopped before their end: lost, parked, preempted, failed, full, ...",
    [*_LANE, "reason"],
)
preempted = Counter(
    "headrace_scheduler_preempted_requests",
    "Bulk requests parked for more urgent requests.",
    _LANE,
)
adopted = Counter(
    "headrace_scheduler_adopted_requests", "Requests found running after a take-over.", _LANE
)
orphaned = Counter(
    "headrace_scheduler_orphaned_requests",
    "Requests that waited for another gateway because theirs was lost.",
    [*_LANE, "reason"],
)
ended = Counter(
    "headrace_scheduler_ended_requests",
    "Requests ended by the scheduler: refused, expired, cancelled, exhausted.",
    [*_LANE, "reason"],
)
settled = Counter(
    "headrace_scheduler_settled_requests",
    "Requests whose end was relayed, by google.rpc.Code.",
    [*_LANE, "code"],
)
usage_published = Counter(
    "headrace_scheduler_usage_records",
    "Usage records published, those that were published again included.",
    ["model"],
)
usage_dropped = Counter(
    "headrace_scheduler_dropped_usage_records",
    "Usage records without a key or a person that were dropped because their stream is full.",
    ["model"],
)
abandoned = Counter(
    "headrace_scheduler_abandoned_requests",
    "Requests removed because no client waited for them.",
    [*_LANE, "reason"],
)
lost_workers = Counter(
    "headrace_scheduler_lost_workers", "Workers that shut down or stopped reporting.", ["model"]
)
dead_letters = Counter(
    "headrace_scheduler_dead_letters", "Messages stored as dead letters.", ["model", "reason"]
)
ignored = Counter(
    "headrace_scheduler_ignored_messages",
    "Messages without effect: redelivery, duplicate, late report, stale point, ...",
    ["model", "reason"],
)
unreadable = Counter(
    "headrace_scheduler_unreadable_messages",
    "Messages that could not be decoded.",
    ["reason"],
)
retried = Counter(
    "headrace_scheduler_retried_calls",
    "Calls to the broker that failed and were repeated.",
    ["reason"],
)

quota_keeper = Gauge(
    "headrace_scheduler_quota_keeper", "1 while this process keeps the quotas, else 0."
)
quota_decisions = Counter(
    "headrace_scheduler_quota_decisions",
    "Answers to reservations: granted, repeated (granted before), refused.",
    ["outcome"],
)
quota_refusals = Counter(
    "headrace_scheduler_quota_refusals", "Refused reservations, by the kind of limit.", ["limit"]
)
quota_settled = Counter(
    "headrace_scheduler_quota_settled_requests",
    "Requests whose usage was charged; late: without a reservation, although limits apply.",
    ["reason"],
)
quota_append_s = Histogram(
    "headrace_scheduler_quota_journal_append_seconds",
    "Time until an entry of the journal of quotas was stored.",
    buckets=_WAIT_BUCKETS,
)
quota_reservations = Gauge(
    "headrace_scheduler_quota_reservations", "Reservations of requests that have not ended."
)
quota_usage_lag_s = Gauge(
    "headrace_scheduler_quota_usage_lag_seconds",
    "Time since the end of the last request that was settled, when it was settled.",
)


def stop_keeping() -> None:
    """Set the metrics that only the quota keeper has."""
    quota_keeper.set(0)
    quota_reservations.set(0)


def stop_leading(model: str) -> None:
    """Remove the metrics of lanes and fleet, which only a leader has."""
    leader.labels(model).set(0)
    for gauge in (waiting, running, oldest_wait_s, estimated_wait_s):
        for priority in PRIORITIES:
            _forget(gauge, model, priority)
    for gauge in (workers, free_slots):
        _forget(gauge, model)


def _forget(gauge: Gauge, *labels: str) -> None:
    # Why: a leadership that ended before its first report has set none.
    with suppress(KeyError):
        gauge.remove(*labels)
