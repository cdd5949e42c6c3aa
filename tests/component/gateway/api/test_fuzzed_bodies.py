"""Whatever is sent, it is answered or refused as the caller's fault, and the next one is served."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

import grpc
import pytest

from helpers.fuzzed import TYPED, VALID, body, message
from helpers.fuzzed_api import fuzzed_api, posted, told

BODIES = 40
"""For each path; `benchmarks/fuzzing.py` sends tens of thousands."""
STATUSES = {200, 400, 404, 409, 501}
"""501 is UNIMPLEMENTED, the native API's code for what is not served."""
CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "UNIMPLEMENTED"}


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    async with fuzzed_api() as api, grpc.aio.insecure_channel(api.address) as opened:
        yield opened


@pytest.mark.parametrize("path", VALID)
async def test_no_body_is_a_fault_of_ours(channel: grpc.aio.Channel, path: str) -> None:
    statuses = Counter[int]()
    for number in range(BODIES):
        data = body(path, Random(f"{path} {number}"))
        status, answer = await posted(channel, path, data)
        statuses[status] += 1
        assert status in STATUSES, (number, data[:400], answer[:400])
        if status != 200:
            assert b"\n" not in answer
            assert len(answer) < 2000, (number, data[:400])
            json.loads(answer)
    assert statuses[400], "nothing was wrong with any"
    status, _ = await posted(channel, path, json.dumps(VALID[path][0]).encode())
    assert status == 200


@pytest.mark.parametrize("path", TYPED)
async def test_no_message_is_a_fault_of_ours(channel: grpc.aio.Channel, path: str) -> None:
    codes = Counter[str]()
    for number in range(BODIES):
        data = message(path, Random(f"{path} {number}"))
        code, reason = await told(channel, path, data)
        codes[code] += 1
        assert code in CODES, (number, data[:400], reason)
    assert codes["INVALID_ARGUMENT"], "nothing was wrong with any"
