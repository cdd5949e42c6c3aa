"""Engines of other projects say what the model says, whoever computes it and however it comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from headrace_worker.engine.backends.openai_backend import UpstreamProtocol
from headrace_worker.engine.backends.remote_engine import RemoteEngine
from headrace_worker.engine.backends.scripted_text import scripted_tokenizer_files
from headrace_worker.engine.base.interface import Sequence, SequenceRefused
from helpers import other_engines
from helpers.running_engine import GREEDY, alone, run, sequence
from helpers.running_mesh import RunningMesh
from helpers.tiny_models import generated

TOKENIZER = Tokenizer.from_str(scripted_tokenizer_files().tokenizer_json.decode())
MESSAGES = '[{"role": "system", "content": "é"}, {"role": "user", "content": "mill"}]'
TOKENS = 20


def saying(text: str) -> Sequence:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    return Sequence(1, tuple(ids), (), replace(GREEDY, max_tokens=TOKENS, ignore_eos=True), seed=1)


@contextmanager
def speaking(speech: UpstreamProtocol, mesh: RunningMesh, files: Path) -> Iterator[RemoteEngine]:
    loaded = other_engines.upstream(files, f"{mesh.url}/v1", mesh.model, protocol=speech)
    assert isinstance(loaded.engine, RemoteEngine)
    with closing(loaded.engine) as engine:
        yield engine


def asked(mesh: RunningMesh, path: str, **body: Any) -> dict[str, Any]:
    """What the mesh says to anybody else."""
    plain = {"model": mesh.model, "temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
    answer = httpx.post(f"{mesh.url}/v1/{path}", json=plain | body, trust_env=False, timeout=30)
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def test_llama_cpp_generates_what_transformers_generates_token_by_token(files: Path) -> None:
    model = other_engines.worded_llama()
    engine = other_engines.llama_cpp(files).engine
    assert isinstance(engine, RemoteEngine)
    sequences = [sequence(n, replace(GREEDY, ignore_eos=True)) for n in range(12)]
    with closing(engine):
        history = run(engine, sequences)
    split = 0
    for one in sequences:
        expected = generated(model, one.prompt_ids, one.parameters.max_tokens)
        if 1 not in expected:  # llama.cpp bans what transformers ignores
            assert history.tokens[one.sequence_id] == expected
            split += TOKENIZER.decode(expected).count("\ufffd")
    assert split, "no answer had a part of a character, which its streams leave out"


def test_text_of_another_server_is_the_same_text(upstream_mesh: RunningMesh, files: Path) -> None:
    expected = asked(upstream_mesh, "completions", prompt="The mill")["text"]
    with speaking(UpstreamProtocol.TEXT, upstream_mesh, files) as engine:
        said = TOKENIZER.decode(alone(engine, saying("The mill")), skip_special_tokens=False)
    assert said
    assert expected.startswith(said), "its tokens are ours, and may be more than the server's"


@pytest.mark.parametrize("prompt", [MESSAGES, "mill"], ids=["messages", "any other text"])
def test_a_conversation_is_sent_as_its_messages(
    upstream_mesh: RunningMesh, files: Path, prompt: str
) -> None:
    user = {"role": "user", "content": "mill"}
    messages = [{"role": "system", "content": "é"}, user] if prompt == MESSAGES else [user]
    expected = asked(upstream_mesh, "chat/completions", messages=messages)["message"]["content"]
    with speaking(UpstreamProtocol.CHAT, upstream_mesh, files) as engine:
        said = TOKENIZER.decode(alone(engine, saying(prompt)), skip_special_tokens=False)
    assert said
    assert expected.startswith(said)


@pytest.mark.parametrize("speech", [UpstreamProtocol.TEXT, UpstreamProtocol.CHAT])
def test_text_protocols_do_not_resume_a_partial_answer(
    upstream_mesh: RunningMesh, files: Path, speech: UpstreamProtocol
) -> None:
    with speaking(speech, upstream_mesh, files) as engine:
        assert not engine.facts.capabilities.resume
        with pytest.raises(SequenceRefused, match="does not support resuming a partial answer"):
            engine.admit(replace(saying("mill"), output_ids=(20,)))
