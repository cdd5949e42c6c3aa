"""headrace.v1 as JSON, through Envoy."""

from __future__ import annotations

import json

import httpx
import pytest

from helpers.api_scripts import (
    SAYING,
    ended,
    fails_midway,
    ids_of,
)
from helpers.scripted_admission import ScriptedAdmission


async def test_the_native_api_speaks_json(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v2/models/valley:generate", json={"prompt": "Hello", "seed": 7})
    body = answer.json()
    assert (body["choices"][0]["text"], body["seed"], body["model"]) == (SAYING, "7", "valley")
    tokens = await http.post("/v2/models/valley:tokenize", json={"text": "the"})
    assert tokens.json()["token_ids"] == ids_of("the")
    assert (await http.get("/v2/models/valley")).json()["engine"] == "scripted"
    assert (await http.get("/v2/workers")).json()["workers"][0]["name"] == "one"


async def test_a_native_stream_of_json_events_ends_in_a_finish(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    path = "/v2/models/valley:streamGenerate"
    answer = await http.post(path, json={"prompt": "Hello", "request_id": "mine"})
    assert answer.headers["content-type"] == "text/event-stream"
    lines = answer.text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert events[0]["started"]["request_id"] == "mine"
    assert "".join(event["delta"]["text"] for event in events[1:-1]) == SAYING
    assert events[-1]["finish"]["usage"]["output_tokens"] == len(ids_of(SAYING)) + 1
    admission.script = fails_midway
    answer = await http.post(path, json={"prompt": "Hello"})
    last = json.loads(answer.text.splitlines()[-2][6:])
    assert last["finish"]["error"]["details"][0]["reason"] == "ATTEMPTS_EXHAUSTED"
    await ended(admission.last)


@pytest.mark.parametrize(
    ("path", "body", "status", "reason", "field"),
    [
        ("valley:generate", b"{", 400, "INVALID_REQUEST", None),
        ("valley:generate", b'{"foo": 1}', 400, "INVALID_REQUEST", "foo"),
        ("valley:generate", b'{"model": "x"}', 400, "INVALID_REQUEST", "model"),
        ("nobody:generate", b'{"prompt": "a"}', 404, "MODEL_NOT_FOUND", "model"),
        ("valley:streamGenerate", b'{"prompt": "a", "n": 9}', 400, "INVALID_REQUEST", "n"),
        ("valley:tokenize", b'{"text": 1}', 400, "INVALID_REQUEST", "text"),
    ],
)
async def test_native_refusals_are_statuses_in_json(
    http: httpx.AsyncClient, path: str, body: bytes, status: int, reason: str, field: str | None
) -> None:
    answer = await http.post(f"/v2/models/{path}", content=body)
    assert answer.status_code == status, answer.text
    details = answer.json()["details"]
    assert details[0]["reason"] == reason
    fields = [v["field"] for d in details for v in d.get("field_violations", [])]
    assert fields == ([field] if field else [])


@pytest.mark.parametrize("query", ["wait=90s", "wait=90", "wait=90.0", "a=wait&wait=90&b=1"])
async def test_a_wait_is_a_duration_or_a_number_of_seconds(
    http: httpx.AsyncClient, query: str
) -> None:
    refused = await http.get(f"/v2/requests/none?{query}")
    assert refused.status_code == 400
    assert "wait is 90 s; it must be 0 s to 60 s" in refused.text
