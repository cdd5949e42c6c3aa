"""What a model brings in its folder beside its weights: ends of a turn, defaults, a tokenizer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from headrace_worker.engine.backends.scripted_text import scripted_tokenizer_files
from headrace_worker.engine.base.interface import FinishReason, SamplingParameters, Sequence
from headrace_worker.engine.base.loaded_model import (
    LoadedModel,
    ModelLoadFailed,
)
from headrace_worker.engine.files.generation_config import configured_end_tokens_in
from headrace_worker.engine.files.tokenizer_files import tokenizer_files
from headrace_worker.engine.loading.loader import load
from headrace_worker.serving.model_card import model_card
from helpers.running_engine import run
from helpers.sentence_pieces import sentence_pieces
from helpers.switching_families import SWITCHING
from helpers.tiny_models import VOCABULARY, random_model
from helpers.tokenizer_folders import write_tokenizer
from helpers.worker_settings import worker_settings

END = 1
"""The end-of-sequence token of the tokenizer of `folder`."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose configuration ends turns with token 0, and its tokenizer with token 1."""
    folder = tmp_path / "model"
    write_tokenizer(scripted_tokenizer_files(), folder)
    random_model("llama", bos_token_id=5, eos_token_id=0).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def edit(file: Path, **changes: object) -> None:
    fields = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(fields | changes))


def loaded(folder: Path) -> LoadedModel:
    return load(worker_settings(model_source=str(folder), threads=1, max_slots=2))


@pytest.mark.parametrize(
    ("generation", "ends"),
    [
        (None, (0, END)),
        ({"eos_token_id": [3, 4]}, (3, 4, END)),
        ({"eos_token_id": END}, (END,)),
        ({"temperature": 0.5}, (0, END)),
        ({"eos_token_id": [3, VOCABULARY, -1]}, (3, END)),
    ],
)
def test_tokens_of_the_configuration_and_of_the_tokenizer_end_a_turn(
    folder: Path, generation: dict[str, Any] | None, ends: tuple[int, ...]
) -> None:
    if generation is not None:
        edit(folder / "generation_config.json", **generation)
    model = loaded(folder)
    assert model.engine.facts.eos_token_ids == model.tokenizer.eos_token_ids == ends
    assert tuple(model_card("m", model, b"", now_unix_s=0).eos_token_ids) == ends
    assert configured_end_tokens_in(folder) in (ends, ends[:-1])


def test_the_tokenizers_end_token_ends_an_answer(folder: Path) -> None:
    model = loaded(folder)
    for end in model.tokenizer.eos_token_ids:
        parameters = SamplingParameters(max_tokens=9, temperature=0, logit_bias={end: 100.0})
        history = run(model.engine, [Sequence(0, (9, 8, 7), (), parameters, seed=0)])
        assert (history.tokens[0], history.finished[0]) == ([end], FinishReason.STOP)


def test_the_end_of_a_nested_configuration_counts(tmp_path: Path) -> None:
    text = {"model_type": "gemma3_text", "vocab_size": 300, "eos_token_id": 106}
    edit(tmp_path / "config.json", model_type="gemma3", text_config=text, eos_token_id=None)
    assert configured_end_tokens_in(tmp_path) == (106,)


def test_a_template_whose_end_of_turn_ends_nothing_is_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(folder / "tokenizer_config.json", eos_token=None)
    template = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    assert loaded(folder).tokenizer.eos_token_ids == (0,)
    logged = [record for record in caplog.records if record.msg == "model.turn_end_unknown"]
    assert [(r.__dict__["token"], r.__dict__["token_id"]) for r in logged] == [("<|end|>", END)]


@pytest.mark.parametrize(
    ("fields", "defaults", "ignored"),
    [
        ({"min_p": 0.05, "do_sample": True}, {"min_p": 0.05}, []),
        (
            {"temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1},
            {"temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1},
            [],
        ),
        ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}, []),
        ({"top_k": -1}, {"top_k": 0}, []),
        ({"min_p": 7, "temperature": "hot"}, {}, ["temperature", "min_p"]),
        (
            {"top_h": 0.9, "suppress_tokens": [5], "num_beams": 4, "max_new_tokens": 2048},
            {},
            ["top_h", "suppress_tokens", "num_beams", "max_new_tokens"],
        ),
        ({"typical_p": 0.9, "num_beams": 1, "no_repeat_ngram_size": 0}, {"typical_p": 0.9}, []),
    ],
)
def test_the_models_own_sampling_is_on_its_card_and_what_is_not_applied_in_the_log(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
    defaults: dict[str, float],
    ignored: list[str],
) -> None:
    edit(folder / "generation_config.json", **fields)
    model = loaded(folder)
    assert model.generation_defaults == defaults
    card = model_card("m", model, b"", now_unix_s=0).defaults
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "typical_p"):
        value = defaults.get(name)
        assert card.HasField(name) == (value is not None)
        assert getattr(card, name) == pytest.approx(value or 0)
    logged = [r.__dict__["field"] for r in caplog.records if r.msg == "model.default_ignored"]
    assert logged == ignored


@pytest.mark.parametrize(
    ("context_tokens", "facts"), [(24, []), (25, ["long factors of LongRoPE"])]
)
def test_frequencies_that_are_not_those_of_short_texts_are_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture, context_tokens: int, facts: list[str]
) -> None:
    caplog.set_level("INFO")
    one = SWITCHING["llama, LongRoPE"]
    random_model("llama", **one.changes).save_pretrained(folder)
    load(
        worker_settings(
            model_source=str(folder), threads=1, max_slots=2, context_tokens=context_tokens
        )
    )
    chosen = [record for record in caplog.records if record.msg == "engine.chosen"]
    whys = [r.__dict__["frequencies"] for r in chosen if "frequencies" in r.__dict__]
    assert len(whys) == len(facts)
    assert all(fact in why and "at most 24" in why for fact, why in zip(facts, whys, strict=True))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_folder_with_nothing_but_a_sentencepiece_model_is_served(folder: Path, kind: str) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    (folder / "tokenizer.model").write_bytes(sentence_pieces(kind))
    model = loaded(folder)
    made = Tokenizer.from_str(model.tokenizer.tokenizer_json.decode())
    original = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in ("the quick river 水 77", "naïve dogs,  jumps"):
        ids = made.encode(text, add_special_tokens=False).ids
        assert ids == original.encode(text)
        assert made.decode(ids) == original.decode(ids)
    assert model.tokenizer.eos_token_ids == (0, 2)
    parameters = SamplingParameters(max_tokens=4, temperature=0, ignore_eos=True)
    history = run(model.engine, [Sequence(0, tuple(ids), (), parameters, seed=0)])
    assert len(history.tokens[0]) == 4


def test_a_conversion_that_splits_text_differently_is_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(sentence_pieces("unigram"))
    edit(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    tokenizer_files("m", folder)
    assert [record.msg for record in caplog.records].count("tokenizer.differs") == 1


@pytest.mark.parametrize(
    ("content", "absent", "fact"),
    [
        (None, "", "no tokenizer: none of tokenizer.json, tokenizer.model"),
        (b"no such thing", "", "neither a sentencepiece nor a tiktoken file"),
        (b"\n\x05broken", "", "a sentencepiece file, cannot be read"),
        (b"IQ== 0\nIg== 1\n", "tiktoken", "a tiktoken file, .* pip install tiktoken"),
        (b"", "sentencepiece", "a sentencepiece file, .* pip install sentencepiece"),
        (b"", "google.protobuf", "a sentencepiece file, .* pip install protobuf"),
    ],
)
def test_an_unreadable_tokenizer_is_distinguished_from_a_missing_one(
    folder: Path, content: bytes | None, absent: str, fact: str
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    if content is not None:
        (folder / "tokenizer.model").write_bytes(content or sentence_pieces())
    if not absent:
        with pytest.raises(ModelLoadFailed, match=fact):
            tokenizer_files("m", folder)
        return
    # As if it were absent, wherever this test runs: None there fails the import.
    program = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "from headrace_worker.engine.files.tokenizer_files import tokenizer_files\n"
        f"tokenizer_files('m', {str(folder)!r})"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode
    assert fact.rpartition(".* ")[2] in ran.stderr.splitlines()[-1]
