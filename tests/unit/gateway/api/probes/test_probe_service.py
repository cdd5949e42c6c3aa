"""The probes' service: the document is made once, whoever requests it at the same time."""

from __future__ import annotations

import asyncio
import threading
from typing import cast

import pytest
from google.protobuf.empty_pb2 import Empty

from headrace_gateway.api.probes.health import Health
from headrace_gateway.api.probes.service import ProbeService
from headrace_gateway.base.calls import Context

CONTEXT = cast(Context, None)  # which this path does not use


class Documents:
    def __init__(self, *, failures: int = 0) -> None:
        self.calls, self._failures = 0, failures
        self.go = threading.Event()

    def make(self) -> bytes:
        self.calls += 1
        if self.calls <= self._failures:
            raise MemoryError
        self.go.wait(10)
        return b"{}"


def service(documents: Documents) -> ProbeService:
    health = Health(leaving=False, broker_connected=True)
    return ProbeService(lambda: health, documents.make, lambda model, caller: True)


async def test_callers_that_come_together_share_one_document() -> None:
    documents = Documents()
    probes = service(documents)
    calls = [asyncio.create_task(probes.GetOpenApi(Empty(), CONTEXT)) for _ in range(5)]
    await asyncio.sleep(0)
    calls[0].cancel()  # its caller leaves; the others get the document all the same
    await asyncio.sleep(0)
    documents.go.set()
    answers = await asyncio.gather(*calls[1:], probes.GetOpenApi(Empty(), CONTEXT))
    assert {each.data for each in answers} == {b"{}"}
    assert documents.calls == 1


async def test_a_document_that_failed_is_made_by_the_next_call() -> None:
    documents = Documents(failures=1)
    documents.go.set()
    probes = service(documents)
    with pytest.raises(MemoryError):
        await probes.GetOpenApi(Empty(), CONTEXT)
    assert (await probes.GetOpenApi(Empty(), CONTEXT)).data == b"{}"
    assert documents.calls == 2
