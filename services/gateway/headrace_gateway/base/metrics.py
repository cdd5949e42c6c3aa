"""All metrics of the gateway. Labels are models, priorities and reasons; never ids."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from headrace.priorities import priority_name
from headrace.v1 import common_pb2

_TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_INTER_TOKEN_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
)  # fmt: skip

requests_total = Counter(
    "headrace_gateway_requests_total",
    "Admitted requests that have ended, by google.rpc.Code of their outcome.",
    ["model", "priority", "code"],
)
calls_total = Counter(
    "headrace_gateway_calls_total",
    "Calls that have ended, rejected ones included, by google.rpc.Code.",
    ["door", "model", "code"],
)
refusals_total = Counter(
    "headrace_gateway_refusals_total",
    "Requests rejected before they were queued, by error reason.",
    ["model", "priority", "reason"],
)
quota_refusals_total = Counter(
    "headrace_gateway_quota_refusals_total",
    "Requests rejected by a limit: by the quota keeper, or from the memory of its last refusal.",
    ["limit", "by"],
)
quota_unavailable_total = Counter(
    "headrace_gateway_quota_unavailable_total",
    "Requests with limits for which the quota keeper did not answer in time.",
    ["outcome"],
)
quota_pauses_total = Counter(
    "headrace_gateway_quota_pauses_total",
    "Times that a request had used up what was reserved for it, and had to wait for more.",
    ["model"],
)
quota_decision_seconds = Histogram(
    "headrace_gateway_quota_decision_seconds",
    "Time until the quota keeper has answered a request to reserve.",
    buckets=_TTFT_BUCKETS,
)
ignored_fields_total = Counter(
    "headrace_gateway_ignored_fields_total",
    "Fields of /v1 bodies without effect, once per body: known ones by name, and the unknown.",
    ["field"],
)
healthy = Gauge("headrace_gateway_healthy", "Whether this gateway can admit requests: 1, else 0.")
open_requests = Gauge("headrace_gateway_open_requests", "Requests admitted and not yet settled.")
detached_requests = Gauge(
    "headrace_gateway_detached_requests", "Open requests that run without a connected client."
)
worker_streams = Gauge("headrace_gateway_worker_streams", "Open delivery streams from workers.")
relayed_tokens_total = Counter(
    "headrace_gateway_relayed_tokens_total", "Output tokens relayed.", ["model", "priority"]
)
time_to_first_token_seconds = Histogram(
    "headrace_gateway_time_to_first_token_seconds",
    "Time from admission to the first token at the gateway.",
    ["model", "priority"],
    buckets=_TTFT_BUCKETS,
)
inter_token_latency_seconds = Histogram(
    "headrace_gateway_inter_token_latency_seconds",
    "Time between tokens at the gateway; of tokens that arrive together, the mean.",
    ["model", "priority"],
    buckets=_INTER_TOKEN_BUCKETS,
)
stale_tokens_total = Counter(
    "headrace_gateway_stale_tokens_total", "Late tokens of attempts that have been fenced."
)
repeated_tokens_total = Counter(
    "headrace_gateway_repeated_tokens_total", "Tokens received twice with equal values."
)
replay_mismatch_total = Counter(
    "headrace_gateway_replay_mismatch_total",
    "Tokens or finishes received twice with different values: determinism is broken.",
)
sender_faults_total = Counter(
    "headrace_gateway_sender_faults_total", "Attempts fenced because their worker skipped tokens."
)
lost_total = Counter(
    "headrace_gateway_lost_total", "Attempts reported to the scheduler as lost.", ["model"]
)
taken_over_total = Counter(
    "headrace_gateway_taken_over_total",
    "Requests of lost gateways that this gateway took over, with or without a reader.",
    ["model"],
)
overdue_total = Counter(
    "headrace_gateway_overdue_total",
    "Requests that the gateway ended at their deadline because no other process had.",
    ["model"],
)
slow_readers_total = Counter(
    "headrace_gateway_slow_readers_total",
    "Connections closed because the client read nothing for too long.",
)
unsettled_requests = Gauge(
    "headrace_gateway_unsettled_requests", "Ended requests that no scheduler has acknowledged."
)
settle_seconds = Histogram(
    "headrace_gateway_settle_seconds",
    "Time from the end of a request to the scheduler's acknowledgement.",
    ["model"],
    buckets=_TTFT_BUCKETS,
)
results_not_stored_total = Counter(
    "headrace_gateway_results_not_stored_total",
    "Results dropped because the broker did not accept them.",
)
cache_lookups_total = Counter(
    "headrace_gateway_cache_lookups_total",
    "Responses and inputs of embeddings that callers wanted from a cache: hit, miss, or bypass, "
    "where none may be used.",
    ["cache", "outcome"],
)
cache_bytes = Gauge("headrace_gateway_cache_bytes", "Memory that a cache holds.", ["cache"])
cache_hits_dropped_total = Counter(
    "headrace_gateway_cache_hits_dropped_total",
    "Hits without a usage record, because too many waited to be stored.",
)
unreadable_reports_total = Counter(
    "headrace_gateway_unreadable_reports_total", "Reports that could not be read.", ["report"]
)
canary_seconds = Histogram(
    "headrace_gateway_canary_seconds",
    "Time from a canary's admission to its token.",
    ["model"],
    buckets=_TTFT_BUCKETS,
)
canary_failures_total = Counter(
    "headrace_gateway_canary_failures_total", "Canaries without a token.", ["model", "reason"]
)


@lru_cache(maxsize=1024)
def _lane(
    model: str, priority: common_pb2.Priority.ValueType
) -> tuple[Counter, Histogram, Histogram]:
    labels = (model, priority_name(priority))
    return (
        relayed_tokens_total.labels(*labels),
        time_to_first_token_seconds.labels(*labels),
        inter_token_latency_seconds.labels(*labels),
    )


class LaneMeter:
    """Measures one request's tokens as they are relayed."""

    __slots__ = ("_first", "_last_s", "_later", "_started", "_tokens")

    def __init__(
        self, model: str, priority: common_pb2.Priority.ValueType, admitted_s: float
    ) -> None:
        self._tokens, self._first, self._later = _lane(model, priority)
        self._last_s = admitted_s
        self._started = False

    def relayed(self, count: int, now_s: float) -> None:
        if count == 0:
            return
        self._tokens.inc(count)
        since_s, self._last_s = now_s - self._last_s, now_s
        if self._started:
            self._later.observe(since_s / count)
        else:
            self._started = True
            self._first.observe(since_s)
