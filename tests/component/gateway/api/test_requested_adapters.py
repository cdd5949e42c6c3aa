"""`model:adapter` as a served name, in every API."""

from __future__ import annotations

import httpx
import openai
import pytest

from helpers.api_scripts import SAYING, ids_of
from helpers.scripted_admission import ScriptedAdmission

HELLO = [{"role": "user", "content": "Hello"}]


async def test_an_adapter_is_requested_as_a_model_and_the_answer_names_it(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    answer = await client.chat.completions.create(
        model="valley:poet",
        messages=HELLO,  # type: ignore[arg-type]
    )
    assert answer.model == "valley:poet"
    request = admission.last.request
    assert request.card.model == "valley"
    assert (request.adapter, request.adapter_digest) == ("poet", "sha256:fedcba")
    plain = await client.chat.completions.create(
        model="valley",
        messages=HELLO,  # type: ignore[arg-type]
    )
    assert plain.model == "valley"
    assert admission.last.request.adapter_digest == ""
    assert plain.system_fingerprint != answer.system_fingerprint


async def test_an_adapter_is_listed_under_its_model(client: openai.AsyncOpenAI) -> None:
    adapted = await client.models.retrieve("valley:poet")
    assert adapted.model_dump()["parent"] == "valley"
    assert "parent" not in (await client.models.retrieve("valley")).model_dump()


async def test_an_unknown_adapter_is_refused_with_those_that_there_are(
    client: openai.AsyncOpenAI,
) -> None:
    fact = "model valley has no adapter .prose.; its adapters: broken, poet"
    with pytest.raises(openai.NotFoundError, match=fact) as refused:
        await client.chat.completions.create(model="valley:prose", messages=HELLO)  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError, match="valley has no adapter"):
        await client.models.retrieve("valley:")


async def test_an_adapter_that_could_not_be_loaded_is_refused_with_why(
    http: httpx.AsyncClient,
) -> None:
    body = {"model": "valley:broken", "prompt": "Hello"}
    refused = await http.post("/v1/completions", json=body)
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert refused.json()["error"]["message"] == (
        "adapter broken of model valley cannot be served: its rank 65 is over 64"
    )


async def test_the_native_api_takes_the_same_names(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/v2/models/valley:poet:generate", json={"prompt": "Hello"})).json()
    assert (answer["choices"][0]["text"], answer["model"]) == (SAYING, "valley:poet")
    tokens = await http.post("/v2/models/valley:poet:tokenize", json={"text": "the"})
    assert tokens.json()["token_ids"] == ids_of("the")
    adapted = (await http.get("/v2/models/valley:poet")).json()
    poet = {"name": "poet", "digest": "sha256:fedcba", "workers": 1, "failure": ""}
    assert (adapted["name"], adapted["adapters"]) == ("valley:poet", [poet])
    broken, again = (await http.get("/v2/models/valley")).json()["adapters"]
    assert again == poet
    assert (broken["name"], broken["failure"]) == ("broken", "its rank 65 is over 64")
