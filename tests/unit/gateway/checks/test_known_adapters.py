"""Which adapters a model has, by the cards of its workers."""

from __future__ import annotations

from headrace.internal.v1.model_card_pb2 import Adapter as CardAdapter
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.models_pb2 import Adapter
from headrace_gateway.checks.adapters import known


def card(**digests: str) -> ModelCard:
    return ModelCard(adapters=[CardAdapter(name=n, digest=d) for n, d in digests.items()])


def adapter(name: str, digest: str, workers: int, failure: str = "") -> Adapter:
    return Adapter(name=name, digest=digest, workers=workers, failure=failure)


def test_the_adapters_of_a_model_are_those_of_all_its_workers() -> None:
    found = known(card(), [card(poet="p"), card(bard="b", poet="p")])
    assert found == [adapter("bard", "b", 1), adapter("poet", "p", 2)]


def test_an_announced_adapter_that_no_worker_runs_now_is_still_known() -> None:
    assert known(card(poet="p"), []) == [adapter("poet", "p", 0)]


def test_while_an_adapter_is_replaced_the_files_of_most_workers_count() -> None:
    old, new = card(poet="1"), card(poet="2")
    assert known(new, [old, old, new])[0].digest == "1"
    assert known(old, [old, new, new])[0].digest == "2"
    assert known(old, [new])[0].digest == "2"


def test_a_failure_on_one_worker_is_reported_and_hides_no_other_that_runs_it() -> None:
    failed = ModelCard(adapters=[CardAdapter(name="poet", failure="no room")])
    assert known(failed, [failed]) == [adapter("poet", "", 0, "no room")]
    assert known(failed, [failed, card(poet="p")]) == [adapter("poet", "p", 1, "no room")]
