"""The stream of a client that does not read ends with an error; no other stream is affected."""

from __future__ import annotations

import asyncio
import json
import socket
from urllib.parse import urlsplit

import grpc
import httpx
from prometheus_client import REGISTRY

from headrace.v1 import generation_pb2, generation_pb2_grpc
from headrace_gateway.request.generation import Tokens, ValidRequest
from helpers.api_scripts import SAYING, ids_of, says
from helpers.eventually import eventually
from helpers.running_api import READER_STALL_S
from helpers.running_edge import RunningEdge
from helpers.scripted_admission import Script, ScriptedAdmission

PATH = "/v1/completions"
CUT_WITHIN_S = 60.0
"""Buffers that a reader leaves full hold megabytes, which a busy machine makes at its leisure."""


def floods(request: ValidRequest) -> Script:
    """More than all buffers on the way hold."""
    ids = ids_of(SAYING) * 200
    return ([Tokens(0, step * len(ids), ids)] for step in range(10**9))


async def abandoned(admission: ScriptedAdmission) -> None:
    """The first generation, and that it ended but once."""
    await eventually(lambda: bool(admission.generations[0].ends), within_s=CUT_WITHIN_S)
    assert admission.generations[0].abandoned == admission.generations[0].ends == 1


def asks(edge: RunningEdge) -> socket.socket:
    """A client with a small buffer has requested a stream, and reads nothing."""
    parts = urlsplit(edge.url)
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.connect((parts.hostname, parts.port))
    body = json.dumps({"model": "valley", "prompt": "a", "stream": True}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: edge\r\ncontent-length: {len(body)}\r\n"
    opened.sendall(f"{head}connection: close\r\n\r\n".encode() + body)
    return opened


def rest(opened: socket.socket) -> bytes:
    opened.settimeout(CUT_WITHIN_S)
    found = bytearray()
    while part := opened.recv(1 << 16):
        found += part
    return bytes(found)


async def test_a_client_that_hardly_reads_gets_an_error_while_other_streams_go_on(
    edge: RunningEdge, http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.script = floods
    with asks(edge) as slow:
        await eventually(lambda: bool(admission.generations), within_s=CUT_WITHIN_S)
        cut = asyncio.create_task(abandoned(admission))
        admission.script = says
        while not cut.done():
            await asyncio.to_thread(slow.recv, 1)
            answer = await http.post(PATH, json={"model": "valley", "prompt": "b"})
            assert answer.json()["choices"][0]["text"] == SAYING
            await asyncio.sleep(0.05)
        await cut
        told = await asyncio.to_thread(rest, slow)
    assert b'"code": "slow_reader"' in told[-1000:]
    assert f"nothing of the answer was read for {READER_STALL_S:g} s".encode() in told[-1000:]
    assert b"[DONE]" not in told


async def test_a_typed_stream_ends_with_the_error_as_its_finish(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    admission.script = floods
    before = cut_so_far()
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    call = stub.StreamGenerate(generation_pb2.GenerateRequest(model="valley", prompt="a"))
    await eventually(lambda: cut_so_far() > before, within_s=CUT_WITHIN_S)
    *_, last = [event async for event in call]
    assert last.finish.error.message.startswith("nothing of the answer was read")
    await abandoned(admission)


def cut_so_far() -> float:
    return REGISTRY.get_sample_value("headrace_gateway_slow_readers_total") or 0.0
