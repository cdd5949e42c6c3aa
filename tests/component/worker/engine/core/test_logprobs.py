"""Log probabilities against transformers' own logits: of output and of prompts, in any company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from headrace.logprobs import LEAST, Logprobs
from headrace_worker.engine.base.interface import SamplingParameters, Sequence
from headrace_worker.engine.core.slot_engine import SlotEngine
from helpers.running_engine import History, run, sequence
from helpers.tiny_models import VOCABULARY, packed, random_model, stepwise

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Family:
    build: Callable[..., SlotEngine]
    changes: dict[str, object]


FAMILIES = {
    "llama": Family(packed, {}),
    "mistral": Family(packed, {"sliding_window": 9}),
    "gemma2": Family(packed, {"head_dim": 16, "final_logit_softcapping": 5.0}),
    "gpt2": Family(packed, {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "bloom": Family(stepwise, {"n_layer": 2, "n_head": 4}),
    "gptj": Family(stepwise, {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8}),
    "mamba": Family(stepwise, {"state_size": 8}),
}
GREEDY = SamplingParameters(max_tokens=6, temperature=0, ignore_eos=True)
CASES = [
    replace(GREEDY, logprobs=3, prompt_logprobs=2),
    GREEDY,
    replace(GREEDY, logprobs=0, temperature=1.2, top_k=20),
    # Bias and penalties shape the draw, not what is returned.
    replace(GREEDY, logprobs=20, repetition_penalty=1.5, logit_bias={30: 50.0}),
    replace(GREEDY, prompt_logprobs=0),
    replace(GREEDY, logprobs=3, temperature=0.9, presence_penalty=1.0, prompt_logprobs=20),
]


def case(number: int) -> Sequence:
    return sequence(number, CASES[number % len(CASES)])


def expected(model: PreTrainedModel, token_ids: tuple[int, ...]) -> Tensor:
    """Of every token that may follow each beginning of the text, `(tokens, vocabulary)`."""
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.tensor([token_ids]), use_cache=False).logits
    return logits[0].float().log_softmax(dim=-1)


def require_right(
    told: Logprobs | None, token_ids: tuple[int, ...], right: Tensor, width: int | None
) -> None:
    """`right[i]` is of the place where `token_ids[i]` stands."""
    if width is None:
        assert told is None
        return
    assert told is not None
    assert len(told) == len(token_ids)
    for token_id, place, (own, top_ids, top) in zip(token_ids, right, told.rows(), strict=True):
        best = place.topk(width)
        assert own == pytest.approx(float(place[token_id]), abs=TOLERANCE)
        assert top == pytest.approx(best.values.tolist(), abs=TOLERANCE)
        assert place[top_ids].tolist() == pytest.approx(best.values.tolist(), abs=TOLERANCE)
        assert top == sorted(top, reverse=True)
        assert len(set(top_ids)) == width


def require_all_right(model: PreTrainedModel, history: History, one: Sequence) -> None:
    number, prompt = one.sequence_id, one.prompt_ids
    tokens = tuple(history.tokens[number])
    right = expected(model, prompt + tokens)
    parameters = one.parameters
    behind = right[len(prompt) - 1 : -1]
    require_right(history.logprobs.get(number), tokens, behind, parameters.logprobs)
    told = history.prompt_logprobs.get(number)
    require_right(told, prompt[1:], right[: len(prompt) - 1], parameters.prompt_logprobs)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_returns_the_plain_models_log_probabilities(family: str) -> None:
    build, changes = FAMILIES[family].build, FAMILIES[family].changes
    engine = build(random_model(family, **changes), max_slots=3, prefill_chunk_tokens=5)
    history = run(engine, [case(number) for number in range(len(CASES))])
    plain = random_model(family, **changes)
    plain.set_attn_implementation("eager")
    for number in range(len(CASES)):
        require_all_right(plain, history, case(number))


@settings(max_examples=10, deadline=None)
@given(
    slots=st.integers(1, 5),
    chunk=st.sampled_from([1, 7, 128]),
    order=st.permutations(range(8)),
    cuts=st.lists(st.integers(0, 5), min_size=8, max_size=8),
)
def test_batching_and_parking_anywhere_change_none_of_them(
    slots: int, chunk: int, order: list[int], cuts: list[int]
) -> None:
    """Each goes on from where it was cut, on another engine, and the prompt is returned once."""
    plain = random_model("llama")
    whole = run(packed(plain, max_slots=8), [case(number) for number in range(8)])
    engine = packed(random_model("llama"), max_slots=slots, prefill_chunk_tokens=chunk)
    known = {n: tuple(whole.tokens[n][: cuts[n]]) for n in range(8)}
    rest = run(engine, [replace(case(n), output_ids=known[n]) for n in order])
    for number, run_of in whole.logprobs.items():
        told = run_of.cut(len(known[number]))
        assert rest.tokens[number] == whole.tokens[number][len(known[number]) :]
        assert rest.logprobs[number].own.tolist() == pytest.approx(told.own.tolist(), abs=TOLERANCE)
        assert rest.logprobs[number].top_ids == told.top_ids
    for number, run_of in whole.prompt_logprobs.items():
        again = rest.prompt_logprobs.get(number)
        assert (again is None) == bool(known[number])
        assert again is None or again.top_ids == run_of.top_ids


def test_prompt_logprobs_skip_no_cached_prefix_and_fill_the_cache() -> None:
    model = random_model("llama")
    engine = packed(model, prefill_chunk_tokens=16)
    plain = replace(sequence(0, GREEDY, prompt_tokens=70))
    told = replace(plain, sequence_id=1, parameters=replace(GREEDY, prompt_logprobs=2))
    first = run(engine, [plain])
    again = run(engine, [told])
    computed = engine.statistics().prompt_tokens
    last = run(engine, [replace(plain, sequence_id=2)])
    assert again.tokens[1] == first.tokens[0] == last.tokens[2]
    assert computed == 140
    assert engine.statistics().prompt_tokens - computed < 16
    fresh = random_model("llama")
    require_all_right(fresh, again, told)


def test_a_prompt_of_one_token_has_no_prompt_logprobs() -> None:
    one = sequence(0, replace(GREEDY, prompt_logprobs=5), prompt_tokens=1)
    history = run(packed(random_model("llama")), [one])
    assert history.prompt_logprobs == {}
    assert len(history.tokens[0]) == GREEDY.max_tokens


def test_what_the_model_rules_out_has_a_number_that_json_can_write() -> None:
    model = random_model("llama")
    head = model.lm_head

    def rule_out(_: object, __: object, output: Tensor) -> Tensor:
        return output.index_fill(-1, torch.arange(5, VOCABULARY), float("-inf"))

    engine = packed(model)
    head.register_forward_hook(rule_out)
    history = run(engine, [sequence(0, replace(GREEDY, logprobs=20, prompt_logprobs=20))])
    values = np.array(history.logprobs[0].top)
    assert np.isfinite(values).all()
    assert values.min() == LEAST
    assert max(history.prompt_logprobs[0].own) == LEAST
