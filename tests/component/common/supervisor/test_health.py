"""Probes of the readiness of processes, and of the whole path."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from headrace.supervisor.health import (
    health_url,
    not_ready_reason,
    wait_for_canary,
    wait_for_gateway_canary,
)
from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.failures import CanaryFailed
from helpers.http_server import answer, http_server
from helpers.running_edge import running_edge


async def test_a_canary_that_does_not_come_is_reported_with_the_last_answer(
    tmp_path: Path,
) -> None:
    async with running_edge(tmp_path) as edge:
        with pytest.raises(CanaryFailed, match=r"no token of pebble .* 503 .*no gateway"):
            await wait_for_canary(edge.url, "pebble", within_s=0.3)
    with pytest.raises(CanaryFailed, match="the last answer: "):
        await wait_for_canary(edge.url, "pebble", within_s=0.3)


async def test_the_first_token_of_a_gateways_own_canary_is_waited_for() -> None:
    count = 'headrace_gateway_canary_seconds_count{model="pebble"}'
    async with http_server() as server:
        server.answers = [answer(body=f"{count} 0.0\n"), answer(body=f"{count} 1.0\n")]
        await wait_for_gateway_canary([None, server.port])
        assert len(server.asked) == 2
        server.answers = [answer(body="")]
        with pytest.raises(CanaryFailed, match=r"canary\.failed"):
            await wait_for_gateway_canary([server.port], within_s=0.3)


async def test_a_process_is_ready_if_its_probe_answers_200(tmp_path: Path) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        assert await not_ready_reason(http, None) == ""
        async with running_edge(tmp_path) as edge:
            assert await not_ready_reason(http, f"{edge.admin_url}/ready") is None
            assert await not_ready_reason(http, f"{edge.admin_url}/nothing")
        assert await not_ready_reason(http, f"{edge.admin_url}/ready") == ""


def test_each_role_is_probed_at_its_own_port() -> None:
    assert health_url(Role.NATS, {"http": 1}) == "http://127.0.0.1:1/healthz"
    assert health_url(Role.ENVOY, {"admin": 1}) == "http://127.0.0.1:1/ready"
    assert health_url(Role.WORKER, {"metrics": 1}) == "http://127.0.0.1:1/readyz"
    assert health_url(Role.WORKER, {}) is None
