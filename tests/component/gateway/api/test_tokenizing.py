"""/tokenize and /detokenize, as vLLM and llama.cpp have them, through Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from headrace.errors import EngineFailed
from headrace_gateway.request.generation import Failed
from helpers.running_api import RunningApi, running_api
from helpers.scripted_admission import ScriptedAdmission
from helpers.tiny_tokenizers import byte_level, word_pieces
from helpers.vector_scripts import EMBEDDER, JUDGE, UNIT, embeds, posted

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def admission() -> ScriptedAdmission:
    return ScriptedAdmission(embeds)


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    async with running_api(admission, EMBEDDER, UNIT, JUDGE) as running:
        yield running


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
async def test_a_text_is_tokenized_as_vllm_does_it(http: httpx.AsyncClient, path: str) -> None:
    ids = list(byte_level().encode("the mill").ids)
    answer = await posted(http, path, {"model": "valley", "prompt": "the mill"})
    assert answer == {"count": len(ids), "max_model_len": 200, "tokens": ids, "token_strs": None}
    body = {"model": "minilm", "prompt": "the mill", "return_token_strs": True}
    special = await posted(http, path, body)
    assert special["tokens"] == list(word_pieces().encode("the mill").ids)
    assert special["token_strs"] == word_pieces().encode("the mill").tokens
    bare = await posted(http, path, body | {"add_special_tokens": False})
    assert bare["token_strs"] == ["the", "mill"]


async def test_a_conversation_is_tokenized_as_it_would_be_answered(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    answer = await posted(http, "/tokenize", {"model": "valley", "messages": HELLO})
    whole = {"model": "valley", "messages": HELLO, "temperature": 0, "stream": False}
    assert await posted(http, "/tokenize", whole) == answer
    admission.script = lambda request: [[Failed(EngineFailed("poisoned"))]]
    await http.post("/v1/chat/completions", json=whole)
    assert answer["tokens"] == list(admission.last.request.prompt_ids)
    assert answer["count"] == len(answer["tokens"])


async def test_a_text_is_tokenized_as_llama_cpp_does_it(http: httpx.AsyncClient) -> None:
    text = "the mill 水"
    ids = list(byte_level().encode(text).ids)
    asked = {"model": "valley", "content": text}
    assert await posted(http, "/tokenize", asked) == {"tokens": ids}
    pieces = (await posted(http, "/tokenize", asked | {"with_pieces": True}))["tokens"]
    assert [each["id"] for each in pieces] == ids
    octets = b"".join(
        piece.encode() if isinstance(piece := each["piece"], str) else bytes(piece)
        for each in pieces
    )
    assert octets == text.encode()
    special = {"model": "minilm", "content": "the mill", "add_special": True}
    assert (await posted(http, "/tokenize", special))["tokens"] == list(
        word_pieces().encode("the mill").ids
    )


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
async def test_ids_come_back_as_their_text(http: httpx.AsyncClient, path: str) -> None:
    tokens = list(byte_level().encode("the mill 水").ids)
    text = "the mill 水"
    answer = await posted(http, path, {"model": "valley", "tokens": tokens})
    assert answer == {"prompt": text, "content": text}
    special = await posted(
        http, path, {"model": "minilm", "tokens": list(word_pieces().encode("the mill").ids)}
    )
    assert special["prompt"] == "[CLS] the mill [SEP]"
    assert (await posted(http, path, {"model": "valley", "tokens": []}))["prompt"] == ""


TOKENIZE_REFUSALS: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("/tokenize", {}, "prompt", "is missing"),
    ("/tokenize", {"prompt": 1}, "prompt", "string"),
    ("/tokenize", {"prompt": [1, 2]}, "prompt", "string"),
    ("/tokenize", {"prompt": "a", "add_special_tokens": 1}, "add_special_tokens", "boolean"),
    ("/tokenize", {"prompt": "a", "model": None}, "model", "asleep, judge, minilm, unit, valley"),
    ("/tokenize", {"prompt": "x" * 100_000}, "prompt", "100000 characters"),
    ("/tokenize", {"messages": []}, "messages", "no messages"),
    ("/tokenize", {"messages": "a"}, "messages", "list"),
    ("/tokenize", {"messages": HELLO, "model": "minilm"}, "messages", "no chat template"),
    ("/tokenize", {"content": 1}, "content", "string"),
    ("/tokenize", {"content": "a", "parse_special": False}, "parse_special", "parse_special"),
    ("/detokenize", {}, "tokens", "is missing"),
    ("/detokenize", {"tokens": "a"}, "tokens", "a list of token ids"),
    ("/detokenize", {"tokens": [1, "a"]}, "tokens", "a list of token ids"),
    ("/detokenize", {"tokens": [-1]}, "tokens", "a list of token ids"),
    ("/detokenize", {"tokens": [10**6]}, "tokens", "token id 1000000, which is out of vocabulary"),
]


async def test_what_cannot_be_tokenized_is_refused_by_its_field(http: httpx.AsyncClient) -> None:
    for path, fields, param, words in TOKENIZE_REFUSALS:
        answer = await http.post(path, json={"model": "valley"} | fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, param), (fields, error)
        assert words in error["message"], (fields, error)
    unknown = await http.post("/tokenize", json={"model": "nobody", "prompt": "a"})
    assert unknown.status_code == 404
