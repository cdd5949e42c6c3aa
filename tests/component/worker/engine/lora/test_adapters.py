"""Adapters, several in one batch: each row is as of a model with its own adapter merged in."""

from __future__ import annotations

import atexit
from dataclasses import replace
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from headrace_worker.engine.base.interface import AdapterRefused, Sequence, SequenceRefused
from headrace_worker.engine.base.model_runner import DecodeBatch, PrefillChunk, SequenceContext
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.kvcache.contiguous_cache import ContiguousKvCache
from headrace_worker.engine.loading.builder import EngineBuilder
from headrace_worker.engine.loading.selfcheck import check_packable
from headrace_worker.engine.lora.adapter_files import WEIGHTS, LoraWeights
from headrace_worker.engine.lora.lora_layers import (
    ActiveAdapters,
    AdaptedModule,
    AdapterRows,
    activate_adapters,
)
from headrace_worker.engine.model.packed_runner import PackedModelRunner
from helpers.random_adapters import merged, write_adapter
from helpers.running_engine import GREEDY, SAMPLED, History, alone, run, sequence
from helpers.tiny_models import VOCABULARY, generated, packed, random_model, stepwise
from helpers.worker_settings import worker_settings

BOUNDS = {"adapters_dir": Path("adapters"), "max_adapters": 3, "max_adapter_rank": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "qwen2": {},
    "gemma2": {"head_dim": 16, "sliding_window": 9, "attn_logit_softcapping": 2.0},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": {},
    "phi3": {"pad_token_id": 0},
    "qwen3_moe": {"num_experts": 4, "head_dim": 16, **EXPERTS},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_key_value_heads": 4,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 12,
        **EXPERTS,
    },
}
FEWER = {
    "llama": ["q_proj", "down_proj", "lm_head"],
    "qwen3_moe": ["q_proj", "o_proj"],
    "deepseek_v3": ["q_a_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"],
    "mamba": ["in_proj", "x_proj"],
}
"""Where all layers would be experts too, or peft refuses some."""


def adapters_of(model: PreTrainedModel, folder: Path) -> list[Path]:
    """Three of unlike ranks and scales, of which the second changes less."""
    family = model.config.model_type
    fewer = {"target_modules": FEWER[family]} if family in FEWER else {}
    all_of_it = {} if family == "llama" else fewer
    return [
        write_adapter(folder / "a", model, number=1, **all_of_it),
        write_adapter(folder / "b", model, number=2, r=3, **fewer),
        write_adapter(folder / "c", model, number=3, r=8, use_rslora=True, **all_of_it),
    ]


def plain_logits(model: PreTrainedModel, token_ids: NDArray[np.int64]) -> Tensor:
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.from_numpy(token_ids)[None], use_cache=False).logits
    return logits[0].float()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_of_a_mixed_step_has_the_logits_of_its_own_merged_model(
    family: str, tmp_path: Path
) -> None:
    def fresh() -> PreTrainedModel:
        return random_model(family, **FAMILIES[family])

    folders = adapters_of(fresh(), tmp_path)
    texts = [(np.arange(24) * (7 + slot) + 31 * slot) % VOCABULARY for slot in range(6)]
    plain = [fresh(), *(merged(fresh(), folder) for folder in folders)]
    expected = [plain_logits(plain[slot % 4], text) for slot, text in enumerate(texts)]
    model = fresh()
    probe = check_packable(model, ContiguousKvCache).result
    builder = EngineBuilder(model, worker_settings(**BOUNDS))
    adapters = builder.adapters(PackedModelRunner(model, probe), packed=True)
    forward = PackedModelRunner(model, ContiguousKvCache(slots=6, tokens=24), adapters=adapters)
    digests = [""]
    for folder in folders:
        fitted = adapters.load(folder)
        adapters.add(fitted)
        digests.append(fitted.digest)
    for slot, text in enumerate(texts):
        assert forward.assign_slot([slot], SequenceContext(text, digests[slot % 4])) == slot
        forward.allocate(slot)
    largest = max(
        float((row - expected[slot][position]).abs().max())
        for slot, position, row in rows_of_mixed_steps(forward, texts)
    )
    assert largest < 1e-4 * float(torch.stack(expected).std())


PROMPT, CHUNK = 13, 5


def rows_of_mixed_steps(
    forward: PackedModelRunner, texts: list[NDArray[np.int64]]
) -> list[tuple[int, int, Tensor]]:
    """Slot, position and logits of every row, where each begins two steps after the last.

    Of every third slot all of the prompt's logits are requested.
    """
    rows, decoding = [], dict[int, int]()
    for step in range(2 * len(texts) + 4):
        slots = [slot for slot, at in sorted(decoding.items()) if at < len(texts[slot])]
        at = np.array([decoding[slot] for slot in slots], dtype=np.int64)
        fed = np.array([texts[slot][decoding[slot]] for slot in slots], dtype=np.int64)
        prefills = [
            piece(slot, texts[slot], start)
            for slot in reversed(range(len(texts)))
            if 0 <= (start := (step - 2 * slot) * CHUNK) < PROMPT
        ]
        with torch.inference_mode():
            logits = forward.run(DecodeBatch(np.array(slots, dtype=np.int64), fed, at), prefills)
        requested = [*zip(slots, at.tolist(), strict=True), *(w for p in prefills for w in kept(p))]
        for row, (slot, position) in zip(logits, requested, strict=True):
            rows.append((slot, position, row))
            if position >= PROMPT - 1:
                decoding[slot] = position + 1
    return rows


def piece(slot: int, text: NDArray[np.int64], start: int) -> PrefillChunk:
    end = min(start + CHUNK, PROMPT)
    return PrefillChunk(slot, start, text[start:end], end == PROMPT, all_logits=slot % 3 == 2)


def kept(prefill: PrefillChunk) -> list[tuple[int, int]]:
    """Slot and position of the rows whose logits it requests."""
    end = prefill.start + len(prefill.token_ids)
    first = prefill.start if prefill.all_logits else end - prefill.is_last_chunk
    return [(prefill.slot, position) for position in range(first, end)]


@pytest.mark.parametrize("family", ["bloom", "mamba"])
def test_where_each_sequence_runs_alone_adapters_change_it_too(family: str, tmp_path: Path) -> None:
    targets = FEWER.get(family, "all-linear")
    folder = write_adapter(tmp_path, random_model(family), number=1, target_modules=targets)
    engine = stepwise(random_model(family), **BOUNDS)
    digest = held(engine, folder)
    parameters = replace(GREEDY, max_tokens=12, ignore_eos=True)
    sequences = [sequence(number, parameters) for number in range(4)]
    sequences = [replace(one, adapter=digest) if n % 2 else one for n, one in enumerate(sequences)]
    history = run(engine, sequences)
    for one in sequences:
        plain = random_model(family)
        plain = merged(plain, folder) if one.adapter else plain
        assert history.tokens[one.sequence_id] == generated(plain, one.prompt_ids, 12)


def held(engine: SlotEngine, folder: Path) -> str:
    """Fit and hold; returns the digest."""
    fitted = engine.adapters.load(folder)
    engine.adapters.add(fitted)
    return fitted.digest


@cache
def llama_adapters() -> list[Path]:
    folder = Path(mkdtemp(prefix="headrace-adapters-"))
    atexit.register(rmtree, folder)
    return adapters_of(random_model("llama"), folder)


def llama_engine(**changes: Any) -> tuple[SlotEngine, list[str]]:
    """With the three; and their digests, behind that of none."""
    engine = packed(random_model("llama"), **BOUNDS, **changes)
    return engine, ["", *(held(engine, folder) for folder in llama_adapters())]


def adapted(number: int, digests: list[str], output_ids: tuple[int, ...] = ()) -> Sequence:
    """Sequence `number`; every fourth runs with the same, or with none."""
    parameters = replace((GREEDY, SAMPLED)[number // 4 % 2], max_tokens=8, ignore_eos=True)
    return replace(sequence(number, parameters, output_ids=output_ids), adapter=digests[number % 4])


@cache
def expected_of_adapted() -> dict[int, list[int]]:
    """What each of twelve generates alone, the greedy ones held against `generate`."""
    engine, digests = llama_engine()
    alone_ = {number: alone(engine, adapted(number, digests)) for number in range(12)}
    plain = [random_model("llama"), *(merged(random_model("llama"), f) for f in llama_adapters())]
    for number in (0, 1, 2, 3, 8, 9, 10, 11):
        prompt_ids = adapted(number, digests).prompt_ids
        assert alone_[number] == generated(plain[number % 4], prompt_ids, 8)
    return alone_


@settings(max_examples=6, deadline=None)
@given(
    slots=st.integers(1, 7),
    chunk=st.sampled_from([1, 5, 16, 128]),
    order=st.permutations(range(12)),
    arrivals=st.integers(1, 4),
    parks=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 11)), max_size=6),
)
def test_no_batching_and_no_parking_changes_a_token_of_any_adapter(
    slots: int, chunk: int, order: list[int], arrivals: int, parks: list[tuple[int, int]]
) -> None:
    engine, digests = llama_engine(max_slots=slots, prefill_chunk_tokens=chunk)
    waiting = [adapted(number, digests) for number in order]
    history = History()
    while waiting or engine.has_work:
        for _ in range(min(arrivals, len(waiting), engine.statistics().free_slots)):
            engine.admit(waiting.pop())
        steps, which = parks.pop() if parks else (4, None)
        for _ in range(steps):
            history.step(engine)
        running = set(order) - history.finished.keys() - {one.sequence_id for one in waiting}
        if which is not None and running:
            number = sorted(running)[which % len(running)]
            waiting.insert(0, adapted(number, digests, engine.park(number)))
    assert history.tokens == expected_of_adapted()


def test_a_cached_prefix_is_used_under_its_own_adapter_only() -> None:
    engine, digests = llama_engine()
    one = sequence(1, prompt_tokens=50)
    for digest, hits in ((digests[1], 0), (digests[2], 0), (digests[0], 0), (digests[1], 48)):
        before = engine.statistics().prefix_hits
        generated = alone(engine, replace(one, adapter=digest))
        assert engine.statistics().prefix_hits - before == hits
        fresh, _ = llama_engine(prefix_cache=False)
        assert generated == alone(fresh, replace(one, adapter=digest))


def test_adapters_come_and_go_while_others_stream_and_no_token_changes() -> None:
    engine = packed(random_model("llama"), **BOUNDS)
    first, second, third = llama_adapters()
    a = held(engine, first)
    expected = expected_of_adapted()
    history = History()
    b = engine.adapters.load(second).digest
    digests = ["", a, b, ""]
    engine.admit(adapted(0, digests))
    engine.admit(adapted(1, digests))
    history.step(engine)
    held(engine, second)
    engine.admit(adapted(2, digests))
    history.step(engine)
    engine.adapters.remove(a)
    with pytest.raises(SequenceRefused, match="is not held"):
        engine.admit(adapted(5, digests))
    held(engine, third)
    while engine.has_work:
        history.step(engine)
    assert history.tokens == {number: expected[number] for number in (0, 1, 2)}


def test_a_removed_adapter_is_freed_with_the_last_sequence_that_uses_it() -> None:
    engine, digests = llama_engine()
    engine.admit(adapted(1, digests))
    full = engine.statistics().adapter_bytes
    for digest in digests[1:]:
        engine.adapters.remove(digest)
    left = engine.statistics().adapter_bytes
    assert 0 < left < full
    engine.cancel(1)
    assert engine.statistics().adapter_bytes == 0
    engine.check_integrity()


def test_an_adapter_that_comes_back_while_it_is_leaving_stays() -> None:
    engine, digests = llama_engine()
    engine.admit(adapted(1, digests))
    engine.adapters.remove(digests[1])
    held(engine, llama_adapters()[0])
    history = run(engine, [adapted(5, digests)])
    assert {1: history.tokens[1], 5: history.tokens[5]} == {
        number: expected_of_adapted()[number] for number in (1, 5)
    }


def test_an_adapter_whose_numbers_overflow_costs_no_other_sequence_a_token(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, random_model("llama"), number=9)
    tensors = load_file(folder / WEIGHTS)
    huge = {name: each * 1e38 * 4 for name, each in tensors.items() if ".lora_A." in name}
    save_file(tensors | huge, folder / WEIGHTS)
    engine = packed(random_model("llama"), **BOUNDS)
    digests = ["", held(engine, llama_adapters()[0]), held(engine, folder), ""]
    history = run(engine, [adapted(number, digests) for number in range(3)])
    assert history.failed == {2: "its logits are not finite"}
    assert history.tokens == {number: expected_of_adapted()[number] for number in (0, 1)}


def test_an_overflow_in_one_row_is_no_nan_in_the_next() -> None:
    layer = nn.Linear(2, 2, bias=False)
    patch = AdaptedModule(of_output_embeddings=False)
    patch.add_adapter(layer, 1, LoraWeights(torch.ones(1, 2), torch.ones(1, 2)))
    patch.add_adapter(layer, 2, LoraWeights(torch.full((1, 2), 3e38), torch.ones(1, 2)))
    rows = torch.ones(1, 2, 2)
    with torch.inference_mode():
        plain = layer(rows)
        with activate_adapters(ActiveAdapters([AdapterRows(slice(0, 2), np.array([1, 2]))], [])):
            adapted = layer(rows)
    assert torch.equal(adapted[0, 0], plain[0, 0] + 2)
    assert adapted[0, 1].isinf().all()


def test_more_adapters_than_the_bound_are_refused_with_it(tmp_path: Path) -> None:
    engine, _ = llama_engine()
    fourth = write_adapter(tmp_path, random_model("llama"), number=4)
    with pytest.raises(AdapterRefused, match="3 adapters are held, which is the bound"):
        held(engine, fourth)
