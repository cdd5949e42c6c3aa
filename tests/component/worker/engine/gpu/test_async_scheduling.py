"""Steps that are launched before the last one is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import Tensor, nn

from headrace_worker.engine.core.slot_engine import SlotEngine
from helpers.running_engine import GREEDY, SAMPLED, History, alone, run, sequence
from helpers.tiny_models import packed, random_model, tiny_llama

ENDLESS = replace(GREEDY, max_tokens=60, ignore_eos=True)


def async_engine(model: object = None, **settings: int) -> SlotEngine:
    return packed(model or tiny_llama(), kv_store="pages", async_scheduling=True, **settings)  # type: ignore[arg-type]


def test_the_next_step_is_under_way_before_the_last_is_read() -> None:
    model, passes = random_model("llama"), [0]

    def count(*_: object) -> None:
        passes[0] += 1

    engine, history = async_engine(model), History()
    model.get_input_embeddings().register_forward_hook(count)
    engine.admit(sequence(0, ENDLESS))
    for _ in range(10):
        history.step(engine)
    assert passes[0] == len(history.tokens[0]) + 1


def test_a_sequence_that_breaks_a_launch_fails_alone() -> None:
    numbers = range(4)
    expected = {n: alone(packed(tiny_llama()), sequence(n, ENDLESS)) for n in numbers}
    others = {
        t for n in numbers for t in (*sequence(n).prompt_ids, *(expected[n] if n != 2 else ()))
    }
    culprit = next(token for token in expected[2][5:] if token not in others)
    model = random_model("llama")

    def poison(_: nn.Module, arguments: tuple[Tensor, ...], __: Tensor) -> None:
        if bool((arguments[0] == culprit).any()):
            raise RuntimeError("poisoned")

    engine = async_engine(model)
    model.get_input_embeddings().register_forward_hook(poison)
    history = run(engine, [sequence(n, ENDLESS) for n in numbers])
    assert history.failed.keys() == {2}
    assert {n: history.tokens[n] for n in numbers if n != 2} == {
        n: expected[n] for n in numbers if n != 2
    }


@pytest.mark.parametrize("leaves", ["park", "cancel"])
def test_a_sequence_that_leaves_during_a_step_changes_nothing_for_the_next_in_its_slot(
    leaves: str,
) -> None:
    engine, history = async_engine(max_slots=1), History()
    engine.admit(sequence(0, ENDLESS))
    for _ in range(5):
        history.step(engine)
    if leaves == "park":
        assert list(engine.park(0)) == history.tokens[0]
    else:
        engine.cancel(0)
    assert alone(engine, sequence(1, SAMPLED)) == alone(packed(tiny_llama()), sequence(1, SAMPLED))
    engine.check_integrity()


def test_cuts_and_draws_of_all_kinds_are_those_of_the_host() -> None:
    kinds = [
        GREEDY,
        SAMPLED,
        replace(SAMPLED, top_k=20),
        replace(SAMPLED, top_p=0.8, min_p=0.02),
    ]
    sequences = [sequence(n, replace(kind, max_tokens=40)) for n, kind in enumerate(kinds)]
    together = run(async_engine(), sequences)
    for one in sequences:
        assert together.tokens[one.sequence_id] == alone(packed(tiny_llama()), one)
