"""AuditService over a real store: pages, tenants, and an export that others can check."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from headrace.admin.v1 import audit_pb2 as pb
from headrace.auth.caller import Caller
from headrace.auth.scopes import ADMIN
from headrace.errors import ResourceNotFound
from headrace_control.api.audit_service import CHUNK_BYTES, AuditService
from headrace_control.api.callers import calling
from headrace_control.base.records import Actor
from headrace_control.store import Store

CONTEXT: Any = None
"""No method reads it."""
BY = Actor("people/8f3c", "10.1.2.3")


@dataclass(frozen=True)
class Parts:
    store: Store


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    store = await Store.open(f"sqlite:///{tmp_path}/headrace.db", upgrade=True)
    yield Parts(store)
    await store.close()


async def listed(parts: Parts, **query: Any) -> pb.ListAuditEventsResponse:
    return await AuditService(parts).ListAuditEvents(pb.ListAuditEventsRequest(**query), CONTEXT)


async def exported(parts: Parts, after_sequence: int = 0) -> list[dict[str, Any]]:
    request = pb.ExportAuditEventsRequest(after_sequence=after_sequence)
    bodies = [each async for each in AuditService(parts).ExportAuditEvents(request, CONTEXT)]
    assert {each.content_type for each in bodies} == {"application/x-ndjson"}
    assert all(len(each.data) < 2 * CHUNK_BYTES for each in bodies)
    return [json.loads(line) for each in bodies for line in each.data.splitlines()]


async def test_events_are_listed_newest_first_in_pages(parts: Parts) -> None:
    for number in range(5):
        details = {"number": number}
        await parts.store.audit.append("workers.drain", f"workers/{number}", details=details, by=BY)
    first = await listed(parts, page_size=3)
    assert [event.sequence for event in first.audit_events] == [5, 4, 3]
    rest = await listed(parts, page_size=3, page_token=first.next_page_token)
    assert [event.resource for event in rest.audit_events] == ["workers/1", "workers/0"]
    event = rest.audit_events[0]
    assert (event.actor, event.client, event.action) == (BY.name, BY.client, "workers.drain")
    assert json.loads(event.details) == {"number": 1}
    assert event.previous_hash == rest.audit_events[1].hash
    assert event.time.seconds > 0
    assert not (await listed(parts, action="keys.create")).audit_events


async def test_administrators_of_a_tenant_see_what_concerns_it(parts: Parts) -> None:
    for tenant in ("team-a", "team-b", ""):
        await parts.store.audit.append("requests.cancel", f"of {tenant}", tenant=tenant, by=BY)
    assert len((await listed(parts)).audit_events) == 3
    assert len((await listed(parts, parent="tenants/team-b")).audit_events) == 1
    with calling(Caller(tenant="team-a", scopes=frozenset({ADMIN}))):
        for query in ({}, {"parent": "tenants/team-a"}):
            (event,) = (await listed(parts, **query)).audit_events
            assert event.resource == "of team-a"
        with pytest.raises(ResourceNotFound, match="tenant team-b not found"):
            await listed(parts, parent="tenants/team-b")


async def test_an_export_has_every_event_and_proves_their_order(parts: Parts) -> None:
    assert await exported(parts) == []
    for number in range(40):
        details = {"text": f"ä{number}" + 3000 * "x"}
        await parts.store.audit.append("keys.create", f"k{number}", details=details, by=BY)
    events = await exported(parts)
    assert [event["sequence"] for event in events] == list(range(1, 41))
    before = 64 * "0"
    for event in events:
        found = event.pop("hash")
        assert event.pop("previous_hash") == before
        text = json.dumps(event, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        before = sha256((before + text).encode()).hexdigest()
        assert before == found
    assert [event["sequence"] for event in await exported(parts, 38)] == [39, 40]
