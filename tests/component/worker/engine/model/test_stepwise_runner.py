"""The stepwise engine against transformers itself, for the families that cannot be packed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from headrace_worker.engine.base.model_runner import DecodeBatch, PrefillChunk
from headrace_worker.engine.kvcache.contiguous_cache import ContiguousKvCache
from headrace_worker.engine.loading.builder import CacheTooSmall, EngineBuilder
from headrace_worker.engine.loading.selfcheck import (
    CheckFailed,
    check_packable,
    check_steppable,
)
from headrace_worker.engine.model.stepwise_runner import StepwiseModelRunner
from helpers.running_engine import GREEDY, SAMPLED, alone, run, sequence
from helpers.tiny_models import (
    POISON,
    VOCABULARY,
    generated,
    poisoned_llama,
    random_model,
    stepwise,
)
from helpers.worker_settings import worker_settings

FAMILIES: dict[str, dict[str, object]] = {
    "gptj": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 9,
    },
    "codegen": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "falcon": {"alibi": True},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
    "llama4_text": {"intermediate_size_mlp": 96, "attention_chunk_size": 4, "head_dim": 16},
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 8, "chunk_size": 8},
    "falcon_mamba": {"state_size": 8},
    "jamba": {
        "num_experts": 4,
        "mamba_d_state": 8,
        "mamba_dt_rank": 8,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
        "pad_token_id": 0,
    },
    "qwen3_next": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "rwkv": {"attention_hidden_size": 64, "context_length": 256},
}
WHOLE = {"mamba", "falcon_mamba", "jamba"}
"""A second piece of a prompt would start from an empty state."""
LENGTH, PROMPT = 40, 13
TRANSFORMERS = f"transformers {transformers.__version__}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_position_has_the_plain_models_logits_beside_another_sequence(
    family: str, learned: Callable[[str], None]
) -> None:
    model = random_model(family, **FAMILIES[family])
    text = (np.arange(LENGTH) * 7919 + 11) % VOCABULARY
    with torch.inference_mode():
        model.set_attn_implementation("eager")
        plain = model(input_ids=torch.from_numpy(text)[None], use_cache=False).logits[0]
        stepping = check_steppable(model).result
        forward = StepwiseModelRunner(
            model, supports_chunked_prefill=stepping.supports_chunked_prefill
        )
        assert stepping.supports_chunked_prefill or family in WHOLE
        if stepping.supports_chunked_prefill and family in WHOLE:
            learned(f"{TRANSFORMERS} takes prompts of {family} in pieces: take it out of WHOLE")
        piece = 5 if stepping.supports_chunked_prefill else PROMPT
        rows = []
        for start in range(0, PROMPT, piece):
            ids = text[start : min(PROMPT, start + piece)]
            prefill = PrefillChunk(3, start, ids, start + piece >= PROMPT)
            rows += list(forward.run(decode(), [prefill]))
        forward.run(decode(), [PrefillChunk(1, 0, text[20:33], is_last_chunk=True)])
        for position in range(PROMPT, LENGTH):
            both = decode((1, text[position - PROMPT], position), (3, text[position], position))
            rows.append(forward.run(both, [])[1])
    errors = (torch.stack(rows) - plain[PROMPT - 1 :]).square().mean(dim=-1).sqrt()
    assert float(errors.max()) < 1e-4 * float(plain.std())


def decode(*rows: tuple[int, int, int]) -> DecodeBatch:
    slots, token_ids, positions = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return DecodeBatch(slots, token_ids, positions)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_generate(family: str) -> None:
    model = random_model(family, **FAMILIES[family])
    parameters = replace(GREEDY, max_tokens=16, ignore_eos=True)
    sequences = [sequence(number, parameters) for number in range(5)]
    history = run(stepwise(model, max_slots=3), sequences)
    for one in sequences:
        assert history.tokens[one.sequence_id] == generated(model, one.prompt_ids, 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_batching_and_parking_change_no_token(family: str) -> None:
    engine = stepwise(random_model(family, **FAMILIES[family]))
    sequences = [sequence(number, replace(SAMPLED, max_tokens=10)) for number in range(6)]
    together = run(engine, sequences).tokens
    for one in sequences:
        tokens = together[one.sequence_id]
        assert alone(engine, one) == tokens
        assert alone(engine, replace(one, output_ids=tuple(tokens[:4]))) == tokens[4:]


def test_a_prompt_that_must_come_whole_comes_whole_beside_those_that_decode() -> None:
    model = random_model("mamba", **FAMILIES["mamba"])
    engine = stepwise(model, prefill_chunk_tokens=8)
    engine.admit(sequence(0))
    engine.step()
    engine.admit(sequence(1, prompt_tokens=60))
    engine.admit(sequence(2, prompt_tokens=5))
    assert engine.step().sequence_ids == [0, 1]
    assert engine.step().sequence_ids == [0, 1, 2]


@pytest.mark.parametrize("family", ["recurrent_gemma"])
def test_state_that_sequences_share_is_found_out_at_load(
    family: str, learned: Callable[[str], None]
) -> None:
    """Or it is right: then transformers keeps the state with the sequence by now."""
    model = random_model(family, num_hidden_layers=3, head_dim=16, attention_window_size=16)
    with pytest.raises(CheckFailed):
        check_packable(model, ContiguousKvCache)
    fact = ""
    try:
        check_steppable(model)
    except CheckFailed as refused:
        fact = str(refused)
    if fact:
        assert re.search(r"with sdpa attention .* with eager attention", fact)
        return
    parameters = replace(GREEDY, max_tokens=24, ignore_eos=True)
    sequences = [sequence(number, parameters) for number in range(5)]
    history = run(stepwise(model, max_slots=3), sequences)
    for one in sequences:
        assert history.tokens[one.sequence_id] == generated(model, one.prompt_ids, 24)
    learned(f"{TRANSFORMERS} can step {family}: move it to FAMILIES")


def test_slots_are_as_many_as_the_cache_takes() -> None:
    token_bytes = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, size, float32
    settings = worker_settings(context_tokens=128)
    enough = EngineBuilder(random_model("llama"), settings, cache_bytes=5 * 128 * token_bytes + 1)
    assert enough.stepwise().facts.max_slots == 5
    with pytest.raises(CacheTooSmall, match=str(128 * token_bytes)):
        EngineBuilder(random_model("llama"), settings, cache_bytes=1000).stepwise()


def test_a_state_of_one_size_costs_the_same_in_any_context() -> None:
    stepping = check_steppable(random_model("mamba", **FAMILIES["mamba"])).result
    assert stepping.slot_bytes(100_000) == stepping.slot_bytes(16) > 0


def test_a_row_of_nans_fails_alone() -> None:
    engine = stepwise(poisoned_llama(nan=True), max_slots=2)
    expected = alone(engine, sequence(0))
    poisoned = replace(sequence(9), prompt_ids=(20, POISON, *range(20, 40)))
    history = run(engine, [poisoned, sequence(0)])
    assert history.failed == {9: "its logits are not finite"}
    assert history.tokens == {0: expected}


def test_bfloat16_chooses_within_two_of_its_steps_of_the_best() -> None:
    model, plain = random_model("bloom").bfloat16(), random_model("bloom")
    for number, tokens in run(stepwise(model), [sequence(n) for n in range(4)]).tokens.items():
        text = torch.tensor([sequence(number).prompt_ids + tuple(tokens)])
        with torch.inference_mode():
            logits = plain(input_ids=text, use_cache=False).logits[0, -len(tokens) - 1 : -1]
        best = logits.max(dim=-1).values
        chosen = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        assert (best - chosen <= 2 * 2**-7 * best.abs()).all()
