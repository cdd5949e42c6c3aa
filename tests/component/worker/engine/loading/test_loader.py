"""Loading a model from a folder: the engine, or the reason why there is none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import headrace_worker
from headrace.settings import read
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.scripted_text import scripted_tokenizer_files
from headrace_worker.engine.base.interface import SamplingParameters, Sequence
from headrace_worker.engine.base.loaded_model import (
    LoadedModel,
    LoadFailed,
    LoadStage,
    ModelLoadFailed,
)
from headrace_worker.engine.loading.loader import load
from headrace_worker.serving.models import load_model
from helpers.running_engine import GREEDY, run, sequence
from helpers.tiny_models import VOCABULARY, generated, random_model
from helpers.tokenizer_folders import write_tokenizer
from helpers.worker_settings import worker_settings

TRANSFORMERS = f"transformers {transformers.__version__}"
DEFAULT_MODEL = Path(headrace_worker.__file__).parent / "default_model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random model saved as transformers saves it, with a tokenizer beside it."""
    folder = tmp_path / "model"
    write_tokenizer(scripted_tokenizer_files(), folder)
    random_model("llama", bos_token_id=0, eos_token_id=1).save_pretrained(folder)
    return folder


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def loaded(folder: Path) -> LoadedModel:
    return load(worker_settings(model_source=str(folder), threads=1, max_slots=4))


def test_a_folder_becomes_an_engine_and_its_tokenizer(folder: Path) -> None:
    model = loaded(folder)
    facts = model.engine.facts
    assert (facts.name, facts.dtype, facts.batch_invariant) == ("packed", "float32", True)
    assert (facts.max_slots, facts.context_tokens) == (4, 256)
    assert (facts.vocabulary_size, facts.eos_token_ids) == (VOCABULARY, (1,))
    assert model.tokenizer.special_tokens == {"bos_token": "<|bos|>", "eos_token": "<|end|>"}
    assert "add_generation_prompt" in (model.tokenizer.chat_template or "")
    tokenizer = Tokenizer.from_str(model.tokenizer.tokenizer_json.decode())
    assert tokenizer.decode(tokenizer.encode(" river 水").ids) == " river 水"


def test_the_generation_configuration_comes_before_the_models_own(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[1, 5], temperature=0.6, top_p=0.9)
    model = loaded(folder)
    assert model.tokenizer.eos_token_ids == model.engine.facts.eos_token_ids == (1, 5)
    assert model.generation_defaults["temperature"] == 0.6
    assert model.generation_defaults["top_p"] == 0.9
    assert model.generation_defaults.get("min_p") is None


def test_bfloat16_does_not_promise_what_it_cannot_keep(folder: Path) -> None:
    settings = worker_settings(model_source=str(folder), dtype="bfloat16", threads=1, max_slots=2)
    facts = load(settings).engine.facts
    assert (facts.dtype, facts.batch_invariant) == ("bfloat16", False)


def test_the_digest_is_the_weights_and_not_the_folders_name(folder: Path, tmp_path: Path) -> None:
    first = loaded(folder).engine.facts.weights_digest
    shutil.copytree(folder, tmp_path / "copy")
    assert loaded(tmp_path / "copy").engine.facts.weights_digest == first
    edit(folder / "config.json", rope_theta=5000.0)
    assert loaded(folder).engine.facts.weights_digest != first


def test_progress_counts_the_bytes_that_are_read_and_the_tensors_that_are_placed(
    folder: Path,
) -> None:
    reports: list[tuple[LoadStage, int, int]] = []
    settings = worker_settings(model_source=str(folder), threads=1, max_slots=1)
    load(settings, lambda *reported: reports.append(reported))
    size = (folder / "model.safetensors").stat().st_size
    tensors = len(load_file(folder / "model.safetensors"))
    assert [report for report in reports if report[0] is LoadStage.READING][-1][1:] == (size, size)
    placed = [report[1:] for report in reports if report[0] is LoadStage.PLACING]
    assert placed == [(done, tensors) for done in range(1, tensors + 1)]


def test_what_cannot_be_loaded_is_named_with_the_reason(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, fact in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "empty", "no config.json"),
    ):
        with pytest.raises(ModelLoadFailed, match=f"{source.name} cannot be loaded.*{fact}"):
            load(worker_settings(model_source=str(source)))
    settings = worker_settings(model_source=str(folder)).model_copy(update={"dtype": "int3"})
    with pytest.raises(ModelLoadFailed, match=f"{folder.name} cannot be loaded: dtype int3"):
        load_model(settings)


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"model_type": "nonesuch"}, "nonesuch"),
        (
            {"model_type": "bert", "architectures": ["BertModel"]},
            "BertModel is not a causal",
        ),
        ({"model_type": "t5", "architectures": None}, "t5 is not a causal"),
    ],
)
def test_a_configuration_that_is_no_causal_language_model_is_refused(
    folder: Path, changes: dict[str, object], fact: str
) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(LoadFailed, match=fact):
        loaded(folder)


def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadFailed, match=r"lack 1 tensors, model\.norm\.weight first"):
        loaded(folder)


def test_weights_of_other_shapes_than_the_configuration_means_are_named(folder: Path) -> None:
    edit(folder / "config.json", vocab_size=200)
    reason = r"do not fit its config.json: lm_head.weight is of \(300, 64\) .* means \(200, 64\)"
    with pytest.raises(LoadFailed, match=reason):
        loaded(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_position_embeddings": 0}, "config.json: max_position_embeddings is 0"),
        (
            {"num_attention_heads": 7},
            r"config.json: .*validate_architecture.*: ValueError: The hid",
        ),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_with_its_fault(
    folder: Path, changes: dict[str, object], reason: str
) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(LoadFailed, match=reason):
        loaded(folder)


def test_a_generation_configuration_is_named_where_it_is_what_cannot_be_read(folder: Path) -> None:
    file = folder / "generation_config.json"
    edit(file, eos_token_id=["<|end|>", 1], temperature="hot")
    assert loaded(folder).engine.facts.eos_token_ids == (1,)
    edit(file, max_new_tokens="many")
    with pytest.raises(LoadFailed, match=r"its generation_config.json: TypeError"):
        loaded(folder)
    file.write_text("[1, 2]")
    with pytest.raises(LoadFailed, match=r"its generation_config.json: TypeError"):
        loaded(folder)


def test_whatever_a_models_files_raise_is_that_it_cannot_be_loaded(folder: Path) -> None:
    edit(folder / "config.json", pad_token_id=99_999)
    settings = read(WorkerSettings, [f"--model-source={folder}", "--model-name=odd"])
    with pytest.raises(ModelLoadFailed, match="AssertionError: Padding_idx"):
        load_model(settings)


def test_weights_that_the_configuration_leaves_out_are_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded(folder)
    assert "model.weights_unused" not in caplog.messages
    edit(folder / "config.json", num_hidden_layers=1)
    loaded(folder)
    assert "model.weights_unused" in caplog.messages


def test_missing_or_broken_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LoadFailed, match="weights"):
        loaded(folder)
    weights.unlink()
    with pytest.raises(LoadFailed, match="no safetensors"):
        loaded(folder)


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(LoadFailed, match="tokenizer"):
        loaded(folder)


def test_an_architecture_that_cannot_be_packed_is_served_stepwise(
    folder: Path, learned: Callable[[str], None]
) -> None:
    bloom = random_model("bloom", eos_token_id=1)
    bloom.save_pretrained(folder)
    engine = loaded(folder).engine
    assert engine.facts.batch_invariant
    if engine.facts.name != "stepwise":
        learned(f"{TRANSFORMERS} can pack bloom: serve another stepwise in test_loading")
    parameters = replace(GREEDY, ignore_eos=True)
    history = run(engine, [sequence(number, parameters) for number in range(6)])
    for number, tokens in history.tokens.items():
        assert tokens == generated(bloom, sequence(number).prompt_ids, parameters.max_tokens)


def test_an_architecture_that_no_engine_gets_right_is_refused_with_both_reasons(
    folder: Path, learned: Callable[[str], None]
) -> None:
    # Its state lies in the model itself, one for all sequences.
    random_model("recurrent_gemma", num_hidden_layers=3, head_dim=16).save_pretrained(folder)
    fact = ""
    try:
        loaded(folder)
    except LoadFailed as refused:
        fact = str(refused)
    if fact:
        assert re.search(r"RecurrentGemma.* packed, .* stepwise, .* off by", fact)
    else:
        learned(f"{TRANSFORMERS} can run recurrent_gemma: refuse another in test_loading")


def test_download_progress_of_the_hub_library_is_reported() -> None:
    with pytest.raises(ModelLoadFailed, match=r"nobody/a--b .* which answered: .*--"):
        load(worker_settings(model_source="nobody/a--b"))


def test_the_shipped_model_generates_what_transformers_generates() -> None:
    model = load(worker_settings(model_source=str(DEFAULT_MODEL), threads=1, max_slots=8))
    tokenizer = Tokenizer.from_str(model.tokenizer.tokenizer_json.decode())
    plain = AutoModelForCausalLM.from_pretrained(DEFAULT_MODEL, dtype=torch.float32)
    texts = ["Hello!", "Who are you?", "Tell me a story.", "Who lives in Willowmere?"]
    parameters = SamplingParameters(max_tokens=48, temperature=0, ignore_eos=True)
    sequences = [
        Sequence(number, tuple(tokenizer.encode(text).ids), (), parameters, seed=0)
        for number, text in enumerate(texts)
    ]
    history = run(model.engine, sequences)
    for one in sequences:
        expected = generated(plain, one.prompt_ids, parameters.max_tokens)
        assert history.tokens[one.sequence_id] == expected
