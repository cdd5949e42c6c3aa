"""What a worker exports of its engine."""

from __future__ import annotations

from prometheus_client import REGISTRY

from headrace_worker.engine.base.interface import EngineStatistics
from headrace_worker.runtime.metrics import WorkerMetrics


def statistics(*, queries: int, hits: int) -> EngineStatistics:
    return EngineStatistics(
        running=0,
        free_slots=4,
        cache_tokens_used=0,
        cache_tokens_total=512,
        steps=0,
        prompt_tokens=0,
        output_tokens=0,
        busy_s=0.0,
        prefix_queries=queries,
        prefix_hits=hits,
    )


def exported(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"model_name": "prefixes", "engine": "packed"})


def test_prefix_hits_are_counted_once_however_often_statistics_are_read() -> None:
    metrics = WorkerMetrics("prefixes", "packed")
    for queries, hits in ((50, 0), (50, 0), (129, 64), (129, 64)):
        metrics.statistics(statistics(queries=queries, hits=hits))
    assert exported("vllm:prefix_cache_queries_total") == 129
    assert exported("vllm:prefix_cache_hits_total") == 64


def test_the_adapters_in_use_are_named_in_one_sample_as_vllm_has_it() -> None:
    metrics = WorkerMetrics("adapted", "packed", max_adapters=4)
    metrics.adapters(["bard", "poet"])
    metrics.adapters(["poet"])
    (family,) = (each for each in REGISTRY.collect() if each.name == "vllm:lora_requests_info")
    assert [sample.labels for sample in family.samples] == [
        {"max_lora": "4", "running_lora_adapters": "poet", "waiting_lora_adapters": ""}
    ]
