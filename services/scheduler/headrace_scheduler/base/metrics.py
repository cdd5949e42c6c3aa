"""What the scheduler counts. Labels: model, priority, reason; never ids."""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import Counter, Gauge, Histogram

from headrace.bus.subjects import PRIORITIES

_LANE = ["model", "priority"]
_WAIT_BUCKETS = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    120,
    300,
)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)

waiting = Gauge("headrace_scheduler_waiting_requests", "In their lane.", _LANE)
running = Gauge("headrace_scheduler_running_requests", "Given to a worker.", _LANE)
oldest_wait_s = Gauge(
    "headrace_scheduler_oldest_wait_seconds", "Since the arrival of the oldest that waits.", _LANE
)
estimated_wait_s = Gauge(
    "headrace_scheduler_estimated_wait_seconds",
    "Of a request that comes now; NaN if unknown.",
    _LANE,
)
workers = Gauge("headrace_scheduler_workers", "Live workers.", ["model"])
free_slots = Gauge("headrace_scheduler_free_slots", "Of all live workers.", ["model"])
leader = Gauge("headrace_scheduler_leader", "1 while this process leads the model.", ["model"])
epoch = Gauge("headrace_scheduler_epoch", "Of the last leadership here.", ["model"])
take_overs = Counter("headrace_scheduler_take_overs", "Leaderships begun here.", ["model"])

moved = Counter(
    "headrace_scheduler_moved_requests",
    "From state to state: new, held, waiting, running, lost, orphaned, ending, gone.",
    [*_LANE, "before", "after"],
)
submitted = Counter("headrace_scheduler_submitted_requests", "Read from a lane, once each.", _LANE)
dispatches = Counter("headrace_scheduler_dispatches", "Batches sent to workers.", ["model"])
dispatched = Counter("headrace_scheduler_dispatched_requests", "Attempts sent to workers.", _LANE)
batch_requests = Histogram(
    "headrace_scheduler_batch_requests", "Requests of a batch.", ["model"], buckets=_SIZE_BUCKETS
)
queue_wait_s = Histogram(
    "headrace_scheduler_queue_wait_seconds", "From lane to dispatch.", _LANE, buckets=_WAIT_BUCKETS
)
prefix_routed = Counter(
    "headrace_scheduler_prefix_routed_requests",
    "Sent to the worker that holds the longest beginning of their prompt.",
    _LANE,
)
prefix_routed_tokens = Counter(
    "headrace_scheduler_prefix_routed_tokens",
    "Of their prompts, what that worker said to hold.",
    _LANE,
)
returned = Counter(
    "headrace_scheduler_returned_requests",
    "Ran, or were to run, and did not end: lost, parked, preempted, failed, vanished, full, ...",
    [*_LANE, "reason"],
)
preempted = Counter(
    "headrace_scheduler_preempted_requests",
    "Whose workers were asked to park them for interactive requests that waited.",
    _LANE,
)
adopted = Counter("headrace_scheduler_adopted_requests", "Found running after a take-over.", _LANE)
orphaned = Counter(
    "headrace_scheduler_orphaned_requests",
    "Their gateway was gone; they waited for their reader to come to another.",
    [*_LANE, "reason"],
)
ended = Counter(
    "headrace_scheduler_ended_requests",
    "Ended by the scheduler: refused, expired, cancelled, given up.",
    [*_LANE, "reason"],
)
settled = Counter(
    "headrace_scheduler_settled_requests", "Ends relayed, by google.rpc.Code.", [*_LANE, "code"]
)
abandoned = Counter(
    "headrace_scheduler_abandoned_requests", "Nobody waited for them any more.", [*_LANE, "reason"]
)
lost_workers = Counter(
    "headrace_scheduler_lost_workers", "Workers that left or fell silent.", ["model"]
)
dead_letters = Counter("headrace_scheduler_dead_letters", "Messages buried.", ["model", "reason"])
ignored = Counter(
    "headrace_scheduler_ignored_messages",
    "Messages that said nothing new: redelivery, duplicate, late report, stale point, ...",
    ["model", "reason"],
)
unreadable = Counter(
    "headrace_scheduler_unreadable_messages",
    "Messages that are no protobuf of their kind.",
    ["reason"],
)
retried = Counter(
    "headrace_scheduler_retried_calls",
    "Calls to the broker that failed and are repeated.",
    ["reason"],
)


def stop_leading(model: str) -> None:
    """Figures of lanes and fleet are the leader's; a standby shows none."""
    leader.labels(model).set(0)
    for gauge in (waiting, running, oldest_wait_s, estimated_wait_s):
        for priority in PRIORITIES:
            _forget(gauge, model, priority)
    for gauge in (workers, free_slots):
        _forget(gauge, model)


def _forget(gauge: Gauge, *labels: str) -> None:
    # A leadership that ended before its first report has shown none.
    with suppress(KeyError):
        gauge.remove(*labels)
