"""OpenAI's usage API, as the openai client calls it through Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from headrace.internal.v1.usage_pb2 import UsageKind
from headrace_control.base.records import Tenant
from headrace_control.store import Store
from helpers.control_edge import ControlEdge, control_edge
from helpers.control_store import ROOT
from helpers.usage_records import START_MS, usage_message

pytestmark = pytest.mark.asyncio(loop_scope="module")
DAY_S = 86_400
TODAY_S = START_MS // 1000 // DAY_S * DAY_S


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlEdge]:
    folder: Path = tmp_path_factory.mktemp("organization")
    async with control_edge(folder) as running:
        store = await Store.open(running.database_url)
        await fill(store)
        await store.close()
        yield running


async def fill(store: Store) -> None:
    """Of acme, which pays in euros, 3 requests today and 1 tomorrow; 1 of other."""
    for tenant in (Tenant("acme", currency="EUR"), Tenant("other")):
        await store.tenants.create(tenant, by=ROOT)
    await store.usage.record(
        [
            usage_message(1),
            usage_message(2, key_id="k2", person="ann", model="canyon"),
            usage_message(3, batch_id="batch_1", input_tokens=100),
            usage_message(4, end_ms=START_MS + DAY_S * 1000),
            usage_message(5, tenant="other", kind=UsageKind.USAGE_KIND_EMBEDDINGS),
        ]
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(edge: ControlEdge) -> str:
    async with edge.admin() as api:
        return str((await api.create_key("acme", scopes=["usage:read"])).secret)


def client(edge: ControlEdge, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        admin_api_key=key, base_url=f"{edge.url}/v1", max_retries=0, timeout=20
    )


async def completions(edge: ControlEdge, key: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Return start, requests and input tokens of each result, and what it is grouped by."""
    async with client(edge, key) as api:
        page = await api.admin.organization.usage.completions(
            start_time=TODAY_S, end_time=TODAY_S + 2 * DAY_S, **parameters
        )
    names = parameters.get("group_by", ())
    return [
        (
            (bucket.start_time - TODAY_S) // DAY_S,
            result.num_model_requests,  # type: ignore[union-attr]
            result.input_tokens,  # type: ignore[union-attr]
            *(getattr(result, name) for name in names),
        )
        for bucket in page.data
        for result in bucket.results
    ]


async def test_the_openai_client_reads_sums_by_day(edge: ControlEdge, key: str) -> None:
    assert await completions(edge, key) == [(0, 3, 120), (1, 1, 10)]
    grouped = await completions(edge, key, group_by=["model", "api_key_id"])
    assert grouped == [
        (0, 1, 10, "canyon", "k2"),
        (0, 2, 110, "valley", "k1"),
        (1, 1, 10, "valley", "k1"),
    ]


async def test_filters_with_brackets_count(edge: ControlEdge, key: str) -> None:
    assert await completions(edge, key, models=["canyon", "none"]) == [(0, 1, 10)]
    assert await completions(edge, key, api_key_ids=["k1"], batch=False) == [(0, 1, 10), (1, 1, 10)]
    assert await completions(edge, key, user_ids=["ann"]) == [(0, 1, 10)]
    assert await completions(edge, key, batch=True, group_by=["batch"]) == [(0, 1, 100, True)]


async def test_a_tenant_sees_its_own_alone_and_an_operator_all(edge: ControlEdge, key: str) -> None:
    assert await completions(edge, key, project_ids=["other"]) == []
    everything = await completions(edge, edge.admin_key, group_by=["project_id"])
    assert everything == [(0, 3, 120, "acme"), (1, 1, 10, "acme")]
    async with client(edge, edge.admin_key) as api:
        page = await api.admin.organization.usage.embeddings(
            start_time=TODAY_S, end_time=TODAY_S + DAY_S, group_by=["project_id"]
        )
    (result,) = page.data[0].results
    assert (result.object, result.project_id) == (
        "organization.usage.embeddings.result",
        "other",
    )


async def test_pages_follow_one_another(edge: ControlEdge, key: str) -> None:
    async with client(edge, key) as api:
        usage = api.admin.organization.usage
        options: dict[str, Any] = {
            "start_time": START_MS // 1000 - 60,
            "end_time": START_MS // 1000 + 120,
            "bucket_width": "1m",
            "limit": 2,
        }
        first = await usage.completions(**options)
        second = await usage.completions(**options, page=first.next_page or "")
    assert (first.has_more, second.has_more) == (True, False)
    starts = [bucket.start_time for page in (first, second) for bucket in page.data]
    assert starts[0] == options["start_time"]
    ends = [bucket.end_time for page in (first, second) for bucket in page.data]
    assert starts[1:] == ends[:-1]
    assert ends[-1] == options["end_time"]
    found = [len(bucket.results) for page in (first, second) for bucket in page.data]
    assert sum(found) == 1


async def test_costs_are_amounts_in_the_tenants_currency(edge: ControlEdge, key: str) -> None:
    async with client(edge, key) as api:
        page = await api.admin.organization.usage.costs(
            start_time=TODAY_S, end_time=TODAY_S + DAY_S, group_by=["line_item"]
        )
    results = page.data[0].results
    lines = [(r.line_item, r.quantity, r.quantity_unit) for r in results]  # type: ignore[union-attr]
    assert ("valley, input_tokens", 102, "tokens") in lines
    assert ("canyon, output_tokens", 5, "tokens") in lines
    assert {r.amount.currency for r in results} == {"eur"}  # type: ignore[union-attr]


async def test_what_no_model_does_has_empty_buckets(edge: ControlEdge, key: str) -> None:
    async with client(edge, key) as api:
        page = await api.admin.organization.usage.moderations(start_time=TODAY_S)
    assert len(page.data) == 7
    assert not any(bucket.results for bucket in page.data)


@pytest.mark.parametrize(
    ("path", "status", "code", "param"),
    [
        ("usage/completions", 400, "invalid_request", "start_time"),
        ("usage/completions?start_time=1&group_by=colour", 400, "invalid_request", "group_by"),
        ("usage/completions?start_time=1&model=x", 400, "invalid_request", "model"),
        ("usage/nothing?start_time=1", 404, "not_found", "kind"),
        ("costs?start_time=1&bucket_width=1h", 400, "invalid_request", "bucket_width"),
    ],
)
async def test_errors_have_openais_format(
    edge: ControlEdge, key: str, path: str, status: int, code: str, param: str
) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(
            f"{edge.url}/v1/organization/{path}", headers={"authorization": f"Bearer {key}"}
        )
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert code in error["code"]


async def test_without_the_scope_nothing_is_shown(edge: ControlEdge) -> None:
    async with edge.admin() as api:
        key = (await api.create_key("acme", scopes=["generate"])).secret
    with pytest.raises(openai.PermissionDeniedError, match="usage:read"):
        await completions(edge, key)
    with pytest.raises(openai.AuthenticationError):
        await completions(edge, "hr_unknown")
