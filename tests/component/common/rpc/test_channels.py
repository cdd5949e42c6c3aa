"""Channels between our own processes, and side ports, in the surroundings that they may meet."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import headrace
from headrace.rpc.addresses import join_host_port
from headrace.rpc.channels import aio_channel
from headrace.rpc.server import add_health_and_reflection, bind, make_server, set_serving
from headrace.telemetry.metrics_server import MetricsServer

SERVICES = Path(headrace.__file__).resolve().parents[2]
PROXY = "http://127.0.0.1:9"
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY")
CALL = """
import asyncio, sys
from grpc_health.v1 import health_pb2, health_pb2_grpc
from headrace.rpc.channels import MESH_PINGS, aio_channel, blocking_channel
async def main():
    async with aio_channel(sys.argv[1], pings=MESH_PINGS) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
asyncio.run(main())
with blocking_channel(sys.argv[1]) as channel:
    health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
print("answered")
"""


@pytest.fixture(params=["127.0.0.1", "::1"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The target of a server with the health service."""
    server = make_server()
    health = add_health_and_reflection(server, [])
    port = bind(server, request.param, 0)
    await server.start()
    await set_serving(health, [], serving=True)
    yield join_host_port(request.param, port)
    await server.stop(grace=None)


async def test_a_server_is_reached_over_ipv4_and_ipv6(server: str) -> None:
    async with aio_channel(server) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("variable", PROXIES)
async def test_no_proxy_of_the_environment_is_used(variable: str) -> None:
    server = make_server()
    health = add_health_and_reflection(server, [])
    target = join_host_port("127.0.0.1", bind(server, "127.0.0.1", 0))
    await server.start()
    await set_serving(health, [], serving=True)
    printed = await _call(target, variable)
    await server.stop(grace=None)
    assert printed == "answered\n"


async def _call(target: str, variable: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CALL, target),
        stdout=subprocess.PIPE,
        env=os.environ | {variable: PROXY, "no_proxy": "", "NO_PROXY": ""},
    )
    out, _ = await process.communicate()
    return out.decode()


def test_channels_are_made_in_one_place_only() -> None:
    makers = [
        path.relative_to(SERVICES)
        for path in SERVICES.rglob("*.py")
        if "insecure_channel(" in path.read_text(encoding="utf-8")
    ]
    assert makers == [Path("common/headrace/rpc/channels.py")]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_side_port_listens_on_any_address(host: str) -> None:
    with MetricsServer(host, 0, why_not_ready=lambda: None) as side:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://{join_host_port(host, side.port)}/healthz")
    assert answer.text == "ok\n"


async def test_the_error_names_the_address_that_a_server_cannot_listen_on() -> None:
    with pytest.raises(OSError, match=r"cannot listen on \[2001:db8::7\]:"):
        bind(make_server(), "2001:db8::7", 0)
