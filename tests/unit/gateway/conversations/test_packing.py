"""Stored JSON: bounded as it is and compressed, and only read by the tenant that has stored it."""

from __future__ import annotations

import asyncio
import json
import random
import zlib
from dataclasses import replace
from typing import Any

import pytest

from headrace.auth.caller import Caller
from headrace.bus.objects import MAX_PART_BYTES
from headrace.clock import SystemClock
from headrace.errors import InvalidRequest, ResourceNotFound
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.v1.common_pb2 import SamplingParameters
from headrace_gateway.base.calls import Call
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.conversations.packing import (
    MAX_JSON_BYTES,
    TooLong,
    packed,
    text_length,
    unpacked,
)
from headrace_gateway.conversations.store import ConversationStore
from headrace_gateway.request.generation_request import GenerationRequest, Text
from headrace_gateway.resume.idempotency import HEADER, apply_key
from helpers.memory_conversations import MemoryConversations

LARGE = {"items": ["水" * 1000] * 1000}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Functions that were called in a thread."""
    called: list[str] = []

    async def to_thread(function: Any, *args: Any) -> Any:
        called.append(function.__name__)
        return function(*args)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    return called


async def test_what_is_large_is_packed_and_read_in_a_thread(threads: list[str]) -> None:
    small = {"items": ["a"]}
    assert await unpacked(await packed(small, "items")) == small
    assert threads == []
    payload = await packed(LARGE, "items")
    assert len(payload) < 256 * 1024
    assert await unpacked(payload) == LARGE
    assert len(threads) == 2


async def test_json_is_bounded_however_well_it_is_compressed() -> None:
    most = {"items": "a" * (MAX_JSON_BYTES - len('{"items":""}'))}
    assert await unpacked(await packed(most, "items")) == most
    over = {"items": most["items"] + "a"}
    with pytest.raises(InvalidRequest, match=f"items has {MAX_JSON_BYTES + 1} bytes as JSON"):
        await packed(over, "items")
    with pytest.raises(TooLong):
        await unpacked(zlib.compress(json.dumps(over, separators=(",", ":")).encode()))
    with pytest.raises(TooLong):
        await unpacked((await packed(most, "items"))[:-8])
    noise = {"items": random.Random(1).randbytes(MAX_PART_BYTES * 3 // 2).hex()}
    with pytest.raises(InvalidRequest, match="when it is compressed"):
        await packed(noise, "items")


def test_all_texts_are_counted() -> None:
    assert text_length({"ab": ["cd", {"e": "fgh"}, 7, None]}) == 8


async def test_a_tenant_does_not_find_what_an_earlier_one_of_its_name_stored() -> None:
    created = {"acme": 5}
    store = ConversationStore(
        GatewaySettings(), MemoryConversations(), SystemClock(), created.__getitem__
    )
    assert await store.put_description("acme", "once-1", {"input": [1]})
    assert not await store.put_description("acme", "once-1", {"input": [2]})
    await store.store_result(ResultRecord(request_id="acme/once-1"))
    assert await store.put_conversation("acme", "conv_1", {"id": "conv_1"}, after=0)
    assert await store.conversation("acme", "conv_1") == ({"id": "conv_1"}, 3)
    created["acme"] = 6
    assert await store.description("acme", "once-1") is None
    with pytest.raises(ResourceNotFound):
        await store.conversation("acme", "conv_1")
    assert await store.put_description("acme", "once-1", {"input": [3]})
    assert await store.description("acme", "once-1") == {"input": [3]}
    assert await store.result("acme", "once-1") is None


def test_a_key_makes_another_id_for_a_later_tenant_of_the_name() -> None:
    def id_of(caller: Caller) -> str:
        call = Call(caller, "r", None, {}, {HEADER.lower(): "k"})
        request = GenerationRequest(
            caller=caller,
            request_id="r",
            model="m",
            prompt=Text(""),
            parameters=SamplingParameters(),
        )
        return apply_key(request, call).request_id

    callers = [Caller("a", tenant_create_ms=ms) for ms in (0, 5, 6)]
    assert len({id_of(caller) for caller in callers}) == 3
    assert id_of(callers[1]) == id_of(replace(callers[1], key_id="another"))
