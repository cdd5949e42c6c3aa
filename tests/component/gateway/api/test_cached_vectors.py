"""Vectors come from the cache input by input, for tenants that allow it and calls that want it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from headrace.internal.v1.access_pb2 import TenantRow
from helpers.running_api import RunningApi, running_api
from helpers.scripted_admission import ScriptedAdmission
from helpers.scripted_keeper import FixedRows
from helpers.vector_scripts import EMBEDDER, JUDGE, embeds, encoded, vector_for

ALLOWED = FixedRows([TenantRow(tenant="default", response_cache=True)])
USE = {"x-headrace-cache": "use"}


@pytest.fixture
def admission() -> ScriptedAdmission:
    return ScriptedAdmission(embeds)


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    async with running_api(admission, EMBEDDER, JUDGE, rows=ALLOWED) as running:
        yield running


async def embed(
    http: httpx.AsyncClient, texts: Sequence[str], headers: dict[str, str] = USE
) -> tuple[list[list[float]], str | None, int]:
    """Return the vectors, the header, and the tokens of the prompt."""
    body = {"model": "minilm", "input": list(texts), "encoding_format": "float"}
    found = await http.post("/v1/embeddings", json=body, headers=headers)
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    vectors = [each["embedding"] for each in answer["data"]]
    return vectors, found.headers.get("x-headrace-cache"), answer["usage"]["prompt_tokens"]


async def test_only_what_is_not_known_is_computed(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    river, mill, wheel = texts = ["the river", "the mill", "the wheel"]
    assert (await embed(http, [mill]))[1] == "miss"
    vectors, outcome, tokens = await embed(http, texts)
    assert outcome == "miss"
    assert list(admission.last.request.inputs) == encoded(river, wheel)
    assert vectors == [vector_for(each) for each in encoded(*texts)]
    assert tokens == sum(len(each.token_ids) for each in encoded(*texts))
    opened = len(admission.generations)
    again, outcome, _ = await embed(http, [wheel, river, mill])
    assert (outcome, len(admission.generations)) == ("hit", opened)
    assert again == [vector_for(each) for each in encoded(wheel, river, mill)]


async def test_calls_that_do_not_want_it_get_nothing_from_it(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for _ in range(2):
        assert (await embed(http, ["the river"], headers={}))[1] is None
    assert len(admission.generations) == 2
    assert (await embed(http, ["the river"]))[1] == "miss"


async def test_scores_are_cached_by_their_pairs(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    body = {"model": "judge", "query": "water", "documents": ["a river", "a wheel"]}
    first = await http.post("/v1/rerank", json=body, headers=USE)
    again = await http.post("/v1/rerank", json=body, headers=USE)
    assert [each.headers["x-headrace-cache"] for each in (first, again)] == ["miss", "hit"]
    assert again.json()["results"] == first.json()["results"]
    assert len(admission.generations) == 1
