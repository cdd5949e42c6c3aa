"""The gateway as a process: ready while it can admit requests, drained at SIGTERM."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.bus.jetstream import JetStreamBus
from headrace.errors import InvalidApiKey
from headrace.rpc.status import from_rpc_error
from headrace.testing.nats_server import NatsServer
from headrace.v1 import (
    fleet_pb2,
    fleet_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
)
from headrace.v1.common_pb2 import SamplingParameters
from helpers.access_tables import PublishedTables, write_peppers
from helpers.eventually import eventually
from helpers.gateway_actors import MODEL
from helpers.gateway_process import GatewayProcess, echo_mesh, gateway_process
from helpers.running_edge import running_edge, until


def request(request_id: str, *, max_tokens: int) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(
        model=MODEL,
        prompt_token_ids=[5, 6, 7],
        parameters=SamplingParameters(max_tokens=max_tokens),
        request_id=request_id,
    )


@pytest.fixture
async def gateway(nats_url: str, tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    async with gateway_process(nats_url, tmp_path, canary_interval_s=0.5) as process:
        yield process


@pytest.fixture
async def channel(gateway: GatewayProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(gateway.target) as opened:
        yield opened


async def serving(gateway: GatewayProcess) -> bool:
    """Return what Envoy's health check gets."""
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest()
        )
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_it_is_ready_without_any_worker_and_reports_the_age_of_the_last_token(
    gateway: GatewayProcess, bus: JetStreamBus
) -> None:
    assert (await gateway.side("/healthz")).status_code == 200
    await eventually(gateway.is_ready)
    assert await serving(gateway)
    assert "no token has come yet" in (await gateway.side("/readyz")).text
    async with echo_mesh(bus) as mesh:
        await eventually(gateway.has_had_a_token, within_s=10.0)
        assert "model toy: ready" in (await gateway.side("/readyz")).text
        canary = mesh.served[0]
        assert (canary.probe, canary.sampling.max_tokens) == (True, 1)
        assert (canary.tenant, canary.request_id[:16]) == ("headrace", "headrace/canary-")
    metrics = (await gateway.side("/metrics")).text
    assert "headrace_gateway_canary_seconds_count" in metrics
    assert "headrace_gateway_healthy 1.0" in metrics
    assert 'headrace_gateway_relayed_tokens_total{model="toy"' not in metrics


async def test_without_its_broker_it_is_alive_and_not_ready_until_that_is_back(
    gateway: GatewayProcess, bus: JetStreamBus, nats: NatsServer
) -> None:
    async def is_unready() -> bool:
        return not await gateway.is_ready() and not await serving(gateway)

    async def is_ready() -> bool:
        return await gateway.is_ready() and await serving(gateway)

    async with echo_mesh(bus):
        await eventually(is_ready, within_s=20.0)
        await nats.kill()
        await eventually(is_unready, within_s=20.0)
        assert "out of reach of NATS" in (await gateway.side("/readyz")).text
        assert (await gateway.side("/healthz")).status_code == 200
        assert gateway.process.returncode is None
        await nats.start()
        await eventually(is_ready, within_s=20.0)


async def test_where_no_gateway_has_its_broker_the_edge_still_answers_with_the_reason(
    gateway: GatewayProcess, bus: JetStreamBus, nats: NatsServer, tmp_path: Path
) -> None:
    async with echo_mesh(bus), running_edge(tmp_path) as edge:
        edge.edge.set_gateways([("127.0.0.1", gateway.ports["grpc"])])
        await until(f"{edge.url}/v1/models/{MODEL}")
        assert await answers(f"{edge.url}/health", 200, "ready")()
        await nats.kill()
        await eventually(answers(f"{edge.url}/health", 503, "out of reach of NATS"), within_s=20)
        async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as http:
            asked = {"model": MODEL, "prompt": [5, 6]}
            refused = await http.post("/v1/completions", json=asked)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "broker_unavailable"
            assert (await http.get(f"/v1/models/{MODEL}")).status_code == 200
        await nats.start()
        await eventually(answers(f"{edge.url}/health", 200, "ready"), within_s=20)


async def test_without_a_scheduler_it_is_not_ready_and_reports_why(
    nats_url: str, bus: JetStreamBus, tmp_path: Path
) -> None:
    async with gateway_process(nats_url, tmp_path, ready_window_s=0.5) as gateway:
        async with echo_mesh(bus):
            await eventually(gateway.has_had_a_token, within_s=20)
        await eventually(lambda: not_serving(gateway))
        assert "no scheduler has reported for" in (await gateway.side("/readyz")).text


async def test_where_keys_are_required_it_is_not_ready_before_it_can_check_them(
    nats_url: str, bus: JetStreamBus, tmp_path: Path
) -> None:
    peppers = write_peppers(tmp_path / "peppers")
    async with (
        gateway_process(nats_url, tmp_path, auth="keys", peppers_file=peppers) as gateway,
        echo_mesh(bus),
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        await asyncio.sleep(1.5)
        assert not await gateway.is_ready()
        assert "control has not published the tables" in (await gateway.side("/readyz")).text
        assert await not_serving(gateway)
        tables = PublishedTables(bus)
        await tables.tenant("a")
        key = await tables.key("a")
        await tables.stamp()
        # Its canary needs no key.
        await eventually(gateway.has_had_a_token, within_s=20)
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        answer = await stub.Generate(request("mine", max_tokens=2), metadata=(("x-api-key", key),))
        assert answer.usage.output_tokens == 2
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Generate(request("mine", max_tokens=2))
        assert type(from_rpc_error(refused.value)) is InvalidApiKey


async def test_it_does_not_start_with_secrets_that_others_may_read(
    nats_url: str, tmp_path: Path
) -> None:
    peppers = write_peppers(tmp_path / "peppers")
    peppers.chmod(0o644)
    line = ("-m", "headrace_gateway", "--auth", "keys", "--peppers-file", str(peppers))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *line, "--nats-url", nats_url, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert f"peppers_file: Value error, {peppers} has mode 0644" in said.decode()
    assert f"run chmod 600 {peppers}" in said.decode()


async def not_serving(gateway: GatewayProcess) -> bool:
    return not await serving(gateway)


def answers(url: str, status: int, told: str) -> Callable[[], Awaitable[bool]]:
    async def does() -> bool:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(url)
        return answer.status_code == status and told in answer.text

    return does


async def test_it_streams_settles_and_knows_its_requests(
    gateway: GatewayProcess, channel: grpc.aio.Channel, bus: JetStreamBus
) -> None:
    async with echo_mesh(bus):
        await eventually(gateway.has_had_a_token, within_s=10.0)
        generations = generation_pb2_grpc.GenerationServiceStub(channel)
        ids: list[int] = []
        async for event in generations.StreamGenerate(request("r1", max_tokens=5)):
            ids += event.delta.token_ids
        assert ids == [5, 6, 7, 5, 6]
        found = await requests_pb2_grpc.RequestServiceStub(channel).GetRequest(
            requests_pb2.GetRequestRequest(request_id="r1")
        )
        assert found.state == requests_pb2.REQUEST_STATE_ENDED
        assert found.outcome.usage.output_tokens == 5
        metrics = (await gateway.side("/metrics")).text
        ended = 'requests_total{code="OK",model="toy",priority="standard"} 1.0'
        assert f"headrace_gateway_{ended}" in metrics
        assert 'gateway_calls_total{code="OK",door="native",model="toy"} 1.0' in metrics
        assert 'model="native"' not in metrics
        fleet = fleet_pb2_grpc.FleetServiceStub(channel)
        listed = await fleet.ListWorkers(fleet_pb2.ListWorkersRequest())
        assert [w.name for w in listed.workers] == ["echo"]


async def test_a_cancelled_request_ends_for_its_reader_and_stays_ended(
    gateway: GatewayProcess, channel: grpc.aio.Channel, bus: JetStreamBus
) -> None:
    requests = requests_pb2_grpc.RequestServiceStub(channel)
    async with echo_mesh(bus, pause_s=0.01):
        await eventually(gateway.has_had_a_token, within_s=10.0)
        stream = generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(
            request("r1", max_tokens=400)
        )
        events = aiter(stream)
        while not (await anext(events)).HasField("delta"):
            pass
        for _ in range(2):
            cancelled = await requests.CancelRequest(
                requests_pb2.CancelRequestRequest(request_id="r1")
            )
            assert cancelled.state == requests_pb2.REQUEST_STATE_ENDED
            assert cancelled.outcome.error.code == grpc.StatusCode.CANCELLED.value[0]
        last = [event async for event in events][-1]
        assert last.finish.error.code == grpc.StatusCode.CANCELLED.value[0]


async def test_an_unknown_request_is_not_found(channel: grpc.aio.Channel) -> None:
    requests = requests_pb2_grpc.RequestServiceStub(channel)

    async def reason() -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await requests.GetRequest(requests_pb2.GetRequestRequest(request_id="unknown"))
        return from_rpc_error(caught.value).reason

    # Until it knows that there are no models, it cannot know that there is no such request.
    async with asyncio.timeout(10):
        while await reason() != "REQUEST_NOT_FOUND":
            await asyncio.sleep(0.05)


async def test_sigterm_lets_open_streams_end_and_then_exits_with_0(
    gateway: GatewayProcess, channel: grpc.aio.Channel, bus: JetStreamBus
) -> None:
    async with echo_mesh(bus, pause_s=0.01):
        await eventually(gateway.has_had_a_token, within_s=10.0)
        stream = generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(
            request("r1", max_tokens=50)
        )
        events = aiter(stream)
        await anext(events)
        gateway.process.terminate()
        rest = [event async for event in events]
        assert sum(len(event.delta.token_ids) for event in rest) == 50
        assert not rest[-1].finish.HasField("error")
        assert await gateway.stop() == 0


async def test_a_drain_that_runs_out_ends_streams_with_an_error_event(
    nats_url: str, bus: JetStreamBus, tmp_path: Path
) -> None:
    async with (
        echo_mesh(bus, pause_s=0.02),
        gateway_process(nats_url, tmp_path, canary_interval_s=0.5, drain_s=0.3) as gateway,
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        await eventually(gateway.has_had_a_token, within_s=10.0)
        stream = generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(
            request("r1", max_tokens=400)
        )
        events = aiter(stream)
        await anext(events)
        gateway.process.terminate()
        last = [event async for event in events][-1]
        assert last.finish.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert await gateway.stop() == 0
