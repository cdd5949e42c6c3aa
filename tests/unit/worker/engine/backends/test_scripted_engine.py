"""What the scripted engine has beyond the contract: text, step time and configured faults."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from headrace_worker.engine.backends.scripted import (
    ScriptedEngine,
    ScriptedFaults,
    ScriptedSettings,
    load_scripted,
)
from headrace_worker.engine.backends.scripted_text import scripted_tokenizer_files, vocabulary_size
from headrace_worker.engine.base.interface import SequenceRefused
from headrace_worker.engine.base.loaded_model import TokenizerFiles
from helpers.running_engine import GREEDY, alone, run, sequence
from helpers.tokenizer_folders import write_tokenizer
from helpers.worker_settings import worker_settings

LONG = replace(GREEDY, max_tokens=1000, ignore_eos=True)


def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(scripted_tokenizer_files().tokenizer_json.decode())


@given(text=st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    token_ids = tokenizer().encode(text, add_special_tokens=False).ids
    assert tokenizer().decode(token_ids, skip_special_tokens=False) == text


def test_the_engine_and_the_tokenizer_agree_on_the_vocabulary() -> None:
    model = load_scripted(worker_settings())
    assert tokenizer().get_vocab_size() == vocabulary_size()
    assert model.engine.facts.vocabulary_size == vocabulary_size()
    assert model.engine.facts.eos_token_ids == model.tokenizer.eos_token_ids
    assert tokenizer().token_to_id("<|end|>") == model.tokenizer.eos_token_ids[0]


def test_answers_are_words_with_a_character_in_pieces_now_and_then() -> None:
    tokens = alone(ScriptedEngine(), sequence(1, LONG))
    text = tokenizer().decode(tokens)
    assert "\ufffd" not in text
    assert {"river", "mill", "heron"} < set(text.split())
    stream = DecodeStream(skip_special_tokens=True)
    pieces = [stream.step(tokenizer(), token) for token in tokens]
    assert "".join(piece for piece in pieces if piece) == text
    assert None in pieces, "no character came in pieces"


def test_an_answer_ends_by_itself_after_16_to_64_tokens() -> None:
    lengths = {
        len(alone(ScriptedEngine(), sequence(number, replace(GREEDY, max_tokens=1000)))) - 1
        for number in range(40)
    }
    assert min(lengths) >= 16
    assert max(lengths) <= 64
    assert len(lengths) > 10


def test_the_files_are_what_transformers_reads(tmp_path: Path) -> None:
    files = scripted_tokenizer_files()
    write_tokenizer(files, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == files.tokenizer_json
    assert files == TokenizerFiles(
        files.tokenizer_json, files.chat_template, files.special_tokens, (1,)
    )


def test_every_step_takes_the_configured_time() -> None:
    slept: list[float] = []
    engine = ScriptedEngine(ScriptedSettings(step_s=0.03), sleep=slept.append)
    history = run(engine, [sequence(number) for number in range(5)])
    assert slept == [0.03] * history.steps


def test_an_engine_configured_to_refuse_refuses_everything() -> None:
    engine = ScriptedEngine(ScriptedSettings(faults=ScriptedFaults(refuse_all=True)))
    with pytest.raises(SequenceRefused):
        engine.admit(sequence(1))


def test_a_failure_at_an_index_comes_after_the_tokens_before_it() -> None:
    engine = ScriptedEngine(ScriptedSettings(faults=ScriptedFaults(fail_at_output_index=5)))
    history = run(engine, [sequence(1)])
    assert history.tokens[1] == alone(ScriptedEngine(), sequence(1))[:5]
    assert history.failed.keys() == {1}


@pytest.mark.parametrize(
    ("faults", "steps_before"),
    [(ScriptedFaults(crash_after_steps=3), 3), (ScriptedFaults(crash_prompts_containing=21), 0)],
)
def test_a_crash_comes_when_configured(faults: ScriptedFaults, steps_before: int) -> None:
    class Crashed(Exception):
        pass

    def crash() -> None:
        raise Crashed

    engine = ScriptedEngine(ScriptedSettings(faults=faults), crash=crash)
    engine.admit(sequence(0))
    for _ in range(steps_before):
        engine.step()
    with pytest.raises(Crashed):
        engine.step()


def test_the_scripted_engine_needs_no_torch() -> None:
    check = (
        "import sys, headrace_worker.engine.backends.scripted; assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", check], check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
