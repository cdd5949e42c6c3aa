"""CPU of the gateway's inside for one token: from a worker's message to its reader, no sockets.

python benchmarks/gateway_delivery.py          # {"64": 6.4, ...} microseconds per token
"""

from __future__ import annotations

import asyncio
import json
import time

from headrace.clock import SystemClock
from headrace.errors import EngineFailed
from headrace.internal.v1.delivery_pb2 import DeliverRequest, Opening
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1.common_pb2 import PRIORITY_STANDARD
from headrace_gateway.request.generation import Tokens
from headrace_gateway.stream.open_request import OpenRequest, SlotBinding
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.worker_stream import WorkerStream

STEPS = 500


def _faultless(binding: SlotBinding, worker_id: str, error: EngineFailed) -> None:
    raise error


def _open_request(number: int) -> OpenRequest:
    record = RequestRecord(
        request_id=f"r{number}", model="toy", priority=PRIORITY_STANDARD, prompt_tokens=1
    )
    record.sampling.max_tokens = STEPS
    return OpenRequest(record, float("inf"), SystemClock(), lambda *_: None)


class _Unlimited:
    def ask(self, open_request: OpenRequest) -> None:
        raise AssertionError("nothing is reserved for it")

    def stop(self, binding: SlotBinding, worker_id: str) -> None:
        raise AssertionError("nothing is reserved for it")


async def _read(open_request: OpenRequest) -> None:
    tokens = 0
    async for events in open_request.reader().events():
        tokens += sum(len(event.token_ids) for event in events if isinstance(event, Tokens))
        if tokens == STEPS:
            return


async def microseconds_per_token(sequences: int) -> float:
    """One token for each sequence in every message; every reader is woken for every token."""
    requests = OpenRequests()
    open_requests = [_open_request(number) for number in range(sequences)]
    for open_request in open_requests:
        requests.add(open_request)
    line = WorkerStream("w1", requests, _faultless, _Unlimited())
    openings = [Opening(slot=n, request_id=f"r{n}", attempt=1) for n in range(sequences)]
    line.take(DeliverRequest(openings=openings))
    messages = [
        DeliverRequest(
            slots=range(sequences), indices=[step] * sequences, token_ids=range(sequences)
        ).SerializeToString()
        for step in range(STEPS)
    ]
    async with asyncio.TaskGroup() as readers:
        for open_request in open_requests:
            readers.create_task(_read(open_request))
        await asyncio.sleep(0)
        started_s = time.process_time()
        for message in messages:
            line.take(DeliverRequest.FromString(message))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    return (time.process_time() - started_s) / sequences / STEPS * 1e6


if __name__ == "__main__":
    found = {n: round(asyncio.run(microseconds_per_token(n)), 2) for n in (1, 16, 64, 256)}
    print(json.dumps(found))
