"""Metrics of a worker, with vLLM's names: dashboards of a vLLM server work unchanged.

Times are differences of monotonic times of this process; the scheduler measures
the time in the lane.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_worker.engine.base.interface import EngineStatistics
from headrace_worker.runtime.assignments import HeldSequence
from headrace_worker.runtime.records import prompt_tokens

_LABELS = ("model_name", "engine")
_TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40,
    80, 160, 640, 2560,
)  # fmt: skip
_GAP_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
_REQUEST_S = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


class StepHistogram(Collector):
    """A histogram that takes many equal values at once.

    Why: all sequences of a step waited equally long, and prometheus_client's own observes one
    value at a time, at two thirds of all that a token cost the event loop.
    """

    def __init__(self, name: str, documentation: str, bounds: tuple[float, ...]) -> None:
        self._name, self._documentation, self._bounds = name, documentation, bounds
        self._children: dict[tuple[str, ...], StepCounts] = {}

    def labels(self, *values: str) -> StepCounts:
        return self._children.setdefault(values, StepCounts(self._bounds))

    def describe(self) -> list[HistogramMetricFamily]:
        return [HistogramMetricFamily(self._name, self._documentation, labels=_LABELS)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        (family,) = self.describe()
        for labels, child in list(self._children.items()):
            family.add_metric(labels, child.cumulative(), child.total)
        yield family


class StepCounts:
    """Counts of one set of labels. Written by one thread; a reader may see half a step."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.total = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float, times: int) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self.total += value * times

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bound, as Prometheus writes it, and how many values are not above it."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


RUNNING = Gauge("vllm:num_requests_running", "Sequences that hold a slot.", _LABELS)
WAITING = Gauge("vllm:num_requests_waiting", "Sequences accepted, not yet in a slot.", _LABELS)
CACHE_USAGE = Gauge("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", _LABELS)
PROMPT_TOKENS = Counter("vllm:prompt_tokens", "Prompt tokens computed.", _LABELS)
OUTPUT_TOKENS = Counter("vllm:generation_tokens", "Output tokens generated.", _LABELS)
PREFIX_QUERIES = Counter(
    "vllm:prefix_cache_queries", "Tokens of contexts looked up in the prefix cache.", _LABELS
)
PREFIX_HITS = Counter(
    "vllm:prefix_cache_hits", "Tokens of these that were cached and not computed again.", _LABELS
)
SUCCESSES = Counter(
    "vllm:request_success", "Sequences that finished.", (*_LABELS, "finished_reason")
)
PREEMPTIONS = Counter("vllm:num_preemptions", "Sequences preempted before their end.", _LABELS)
TTFT = Histogram(
    "vllm:time_to_first_token_seconds",
    "Time from acceptance to the first token.",
    _LABELS,
    buckets=_TTFT_S,
)
GAP = StepHistogram(
    "vllm:inter_token_latency_seconds", "Time between two tokens of a sequence.", _GAP_S
)
REGISTRY.register(GAP)
WHOLE = Histogram(
    "vllm:e2e_request_latency_seconds",
    "Time from acceptance to the end.",
    _LABELS,
    buckets=_REQUEST_S,
)
PROMPT_LENGTH = Histogram(
    "vllm:request_prompt_tokens", "Prompt tokens of a request.", _LABELS, buckets=_TOKENS
)
OUTPUT_LENGTH = Histogram(
    "vllm:request_generation_tokens", "Output tokens of a sequence.", _LABELS, buckets=_TOKENS
)
STEP_TOKENS = Histogram(
    "vllm:iteration_tokens_total", "Output tokens of a step.", _LABELS, buckets=_TOKENS
)
STEPS = Counter("headrace_worker_steps", "Steps of the engine.", ("model",))
ENGINE_BUSY = Counter("headrace_worker_engine_busy_seconds", "Time spent in steps.", ("model",))
REFUSED = Counter(
    "headrace_worker_refused_dispatches",
    "Requests of dispatches that were refused.",
    ("model", "cause"),
)
FAILED = Counter(
    "headrace_worker_failed_sequences", "Requests that the engine failed to compute.", ("model",)
)
ORPHANED = Counter(
    "headrace_worker_orphaned_requests",
    "Requests parked because their gateway was unreachable.",
    ("model",),
)

RELOADS = Counter(
    "headrace_worker_reloads",
    "Reloads while another model was served; a `failed` one changed nothing.",
    ("model", "outcome"),
)


ADAPTERS = Gauge(
    "vllm:lora_requests_info",
    "Adapters in use; the value is the time of the last update.",
    ("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
)
ADAPTER_BYTES = Gauge("headrace_worker_adapter_bytes", "Memory of the loaded adapters.", ("model",))


SMOOTHING = 0.1
"""How far one step moves the average time per token: about the last ten count."""


class WorkerMetrics:
    """The metrics of one served model, its labels bound once."""

    def __init__(self, model: str, engine: str, *, max_adapters: int = 0) -> None:
        labels = (model, engine)
        self._labels, self._model, self._max_adapters = labels, model, max_adapters
        self._running = RUNNING.labels(*labels)
        self._usage = CACHE_USAGE.labels(*labels)
        WAITING.labels(*labels).set(0)
        self._prompt, self._output = PROMPT_TOKENS.labels(*labels), OUTPUT_TOKENS.labels(*labels)
        self._prefix_queries = PREFIX_QUERIES.labels(*labels)
        self._prefix_hits = PREFIX_HITS.labels(*labels)
        self._ttft, self._gap = TTFT.labels(*labels), GAP.labels(*labels)
        self._whole, self._output_length = WHOLE.labels(*labels), OUTPUT_LENGTH.labels(*labels)
        self.step_tokens = STEP_TOKENS.labels(*labels)
        self._prompt_length = PROMPT_LENGTH.labels(*labels)
        self.parked = PREEMPTIONS.labels(*labels)
        self.failed, self.orphaned = FAILED.labels(model), ORPHANED.labels(model)
        self._steps, self._busy = STEPS.labels(model), ENGINE_BUSY.labels(model)
        self._seen: EngineStatistics | None = None
        self._first_s = self._gap_s = 0.0

    @property
    def token_s(self) -> float:
        """Recent time between two output tokens, or else to a first one; 0 before that."""
        return self._gap_s or self._first_s

    def accepted(self, record: RequestRecord) -> None:
        if not record.probe:
            self._prompt_length.observe(prompt_tokens(record))

    def first_token(self, held: HeldSequence, now_s: float) -> None:
        self._first_s = now_s - held.accepted_s
        if not held.is_probe:
            self._ttft.observe(self._first_s)

    def further_tokens(self, gap_s: float, tokens: int) -> None:
        self._gap.observe(gap_s, tokens)
        self._gap_s += SMOOTHING * (gap_s - self._gap_s) if self._gap_s else gap_s

    def ended(self, held: HeldSequence, reason: str, now_s: float) -> None:
        if held.is_probe:
            return
        SUCCESSES.labels(*self._labels, reason).inc()
        self._whole.observe(now_s - held.accepted_s)
        self._output_length.observe(len(held.output_ids))

    def adapters(self, running: list[str]) -> None:
        """Set which adapters are in use, if the engine supports any."""
        if self._max_adapters:
            # Why clear: each mixture is a set of labels of its own, and only the last is true.
            ADAPTERS.clear()
            ADAPTERS.labels(str(self._max_adapters), ",".join(running), "").set_to_current_time()

    def statistics(self, now: EngineStatistics) -> None:
        """Update the gauges and counters of the engine."""
        self._running.set(now.running)
        self._usage.set(now.cache_tokens_used / max(1, now.cache_tokens_total))
        seen = self._seen
        self._prompt.inc(now.prompt_tokens - (seen.prompt_tokens if seen else 0))
        self._output.inc(now.output_tokens - (seen.output_tokens if seen else 0))
        self._prefix_queries.inc(now.prefix_queries - (seen.prefix_queries if seen else 0))
        self._prefix_hits.inc(now.prefix_hits - (seen.prefix_hits if seen else 0))
        self._steps.inc(now.steps - (seen.steps if seen else 0))
        self._busy.inc(now.busy_s - (seen.busy_s if seen else 0.0))
        ADAPTER_BYTES.labels(self._model).set(now.adapter_bytes)
        self._seen = now
