"""Types that round coarsely, by teacher forcing; what each promises; and what it needs."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

import headrace_worker
from headrace_worker.engine.base.interface import SamplingParameters, Sequence
from headrace_worker.engine.base.loaded_model import LoadedModel, LoadFailed
from headrace_worker.engine.base.precision import (
    Precision,
    multiplies_bfloat16,
    quantize_to_int8,
    require_available,
)
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.loading.builder import EngineBuilder
from headrace_worker.engine.loading.loader import load
from headrace_worker.serving.model_card import model_card, tokenizer_bundle
from helpers.families import FAMILIES
from helpers.running_engine import GREEDY, run, sequence
from helpers.teacher_forcing import STEPS, judge
from helpers.tiny_models import EOS, random_model
from helpers.worker_settings import worker_settings

DEFAULT_MODEL = Path(headrace_worker.__file__).parent / "default_model"
FLOAT32, BFLOAT16 = Precision(), Precision("bfloat16")
INT8, BFLOAT16_INT8 = Precision("float32", "int8"), Precision("bfloat16", "int8")
ALLOWED_STEPS = {BFLOAT16: STEPS, INT8: STEPS, BFLOAT16_INT8: 2 * STEPS}
"""In bfloat16 with int8, every product is rounded twice: before its scale and after."""
TEXTS = ["Hello!", "Who are you?", "Tell me a story.", "Who lives in Willowmere?", "7 + 5?"]


def converted(model: PreTrainedModel, precision: Precision) -> PreTrainedModel:
    model = model.to(precision.torch_dtype)  # type: ignore[arg-type]  # theirs
    if precision.quantization == "int8":
        quantize_to_int8(model)
    model.set_attn_implementation("eager")
    return model


def in_precision(family: str, precision: Precision) -> PreTrainedModel:
    return converted(random_model(family, **FAMILIES.get(family, {})), precision)


def engine(model: PreTrainedModel, precision: Precision, max_slots: int = 5) -> SlotEngine:
    settings = worker_settings(
        max_slots=max_slots,
        context_tokens=128,
        prefill_chunk_tokens=8,
        quantization=precision.quantization,
    )
    return EngineBuilder(model, settings, (EOS,)).build()


@pytest.mark.parametrize(
    ("precision", "family"),
    [
        *((BFLOAT16, family) for family in (*FAMILIES, "bloom")),
        *((INT8, family) for family in ("llama", "gemma2", "gpt2", "qwen3_moe", "deepseek_v3")),
        *((BFLOAT16_INT8, family) for family in ("llama", "mistral", "olmo2")),
    ],
    ids=lambda each: each.name if isinstance(each, Precision) else each,
)
def test_every_choice_in_a_mixed_batch_is_the_plain_models_within_rounding(
    precision: Precision, family: str
) -> None:
    sequences = [sequence(n, replace(GREEDY, ignore_eos=True)) for n in range(8)]
    history = run(engine(in_precision(family, precision), precision), sequences)
    plain = in_precision(family, precision)
    verdict = judge(plain, sequences, history.tokens, steps=ALLOWED_STEPS[precision])
    assert verdict.tokens == 8 * GREEDY.max_tokens
    assert verdict.faults == (), f"first of {len(verdict.divergences)}: {verdict.first}"


def shipped(precision: Precision) -> LoadedModel:
    """The model that comes with Headrace."""
    settings = worker_settings(model_source=str(DEFAULT_MODEL), threads=1, max_slots=len(TEXTS))
    # Why a copy: it is not validated, and some tests request a precision that does not exist.
    precise = {"dtype": precision.dtype, "quantization": precision.quantization}
    return load(settings.model_copy(update=precise))


def default_model_texts(precision: Precision) -> tuple[list[Sequence], dict[int, list[int]]]:
    """What the model that ships answers to all of TEXTS at once."""
    model = shipped(precision)
    tokenizer = Tokenizer.from_str(model.tokenizer.tokenizer_json.decode())
    parameters = SamplingParameters(max_tokens=32, temperature=0, ignore_eos=True)
    sequences = [
        Sequence(number, tuple(tokenizer.encode(text).ids), (), parameters, seed=0)
        for number, text in enumerate(TEXTS)
    ]
    return sequences, run(model.engine, sequences).tokens


@pytest.mark.parametrize("precision", [BFLOAT16, INT8], ids=lambda each: each.name)
def test_so_are_those_of_the_model_that_ships(precision: Precision) -> None:
    sequences, tokens = default_model_texts(precision)
    plain = AutoModelForCausalLM.from_pretrained(DEFAULT_MODEL, dtype=precision.torch_dtype)
    verdict = judge(converted(plain, precision), sequences, tokens)
    assert verdict.faults == (), f"first of {len(verdict.divergences)}: {verdict.first}"


def test_a_choice_that_rounding_does_not_explain_is_found_with_its_margin() -> None:
    sequences = [sequence(n, replace(GREEDY, ignore_eos=True)) for n in range(2)]
    tokens = run(engine(in_precision("llama", FLOAT32), FLOAT32), sequences).tokens
    plain = in_precision("llama", FLOAT32)
    assert judge(plain, sequences, tokens).divergences == ()
    right = tokens[1][-1]
    tokens[1][-1] = (right + 1) % 300
    (fault,) = judge(plain, sequences, tokens).faults
    assert (fault.sequence_id, fault.output_index, fault.best) == (1, GREEDY.max_tokens - 1, right)
    assert fault.margin > fault.allowed


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16, INT8], ids=lambda each: each.name)
def test_the_card_names_the_precision_and_promises_equal_output_in_float32_alone(
    precision: Precision,
) -> None:
    model = shipped(precision)
    card = model_card("valley", model, tokenizer_bundle(model.tokenizer), now_unix_s=0)
    assert (card.dtype, card.batch_invariant) == (precision.name, precision == FLOAT32)


def test_a_request_never_goes_on_in_another_precision() -> None:
    digests = {
        shipped(precision).engine.facts.weights_digest
        for precision in (FLOAT32, BFLOAT16, INT8, BFLOAT16_INT8)
    }
    assert len(digests) == 4


def test_int8_keeps_the_weights_of_linear_layers_in_a_quarter_of_the_memory() -> None:
    plain, quantized = (in_precision("llama", each) for each in (FLOAT32, INT8))
    sizes = [sum(_bytes(module.weight) for module in linears(m)) for m in (plain, quantized)]
    assert sizes[1] < 0.3 * sizes[0]


def linears(model: PreTrainedModel) -> list[torch.nn.Linear]:
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)]


def _bytes(weight: torch.Tensor) -> int:
    parts = [getattr(weight, name, None) for name in ("qdata", "scale")]
    found = [part for part in parts if part is not None] or [weight]
    return sum(part.numel() * part.element_size() for part in found)


@pytest.mark.parametrize(
    ("precision", "fact"),
    [
        (Precision("float64"), "dtype float64 is none of float32, bfloat16, float16"),
        (Precision("float32", "int2"), "quantization int2 is none of none, int8"),
    ],
)
def test_an_unknown_precision_is_refused(precision: Precision, fact: str) -> None:
    with pytest.raises(LoadFailed, match=fact):
        shipped(precision)


def test_what_a_precision_needs_is_named_where_it_is_absent() -> None:
    half = Precision("float16")
    with pytest.raises(LoadFailed, match=r"needs torchao.*pip install 'headrace\[int8\]'"):
        require_available(INT8, on_gpu=True, has_torchao=False)
    with pytest.raises(LoadFailed, match=r"float16 needs a GPU.*take float32"):
        require_available(half, has_torchao=True, on_gpu=False)
    for precision in (FLOAT32, BFLOAT16, half):
        require_available(precision, has_torchao=False, on_gpu=True)


@pytest.mark.parametrize(
    ("flags", "in_hardware"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", False),
        ("", True),
    ],
)
def test_whether_a_cpu_multiplies_bfloat16_is_known_by_its_flags(
    flags: str, in_hardware: bool
) -> None:
    assert multiplies_bfloat16(f"processor\t: 0\n{flags}\n") == in_hardware


def test_bfloat16_without_hardware_for_it_is_logged_and_loaded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        load(
            worker_settings(
                model_source=str(DEFAULT_MODEL), threads=1, max_slots=1, dtype="bfloat16"
            )
        )
    logged = [record for record in caplog.records if record.message == "precision.slow"]
    in_hardware = multiplies_bfloat16(Path("/proc/cpuinfo").read_text())
    assert len(logged) == (0 if in_hardware else 1)
