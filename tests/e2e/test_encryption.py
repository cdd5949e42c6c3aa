"""A mesh with TLS and keys, as its users meet it, and its certificates exchanged under load."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any

import grpc
import openai
import pytest

from headrace.bus import BusUnavailable, connect
from headrace.client import AsyncClient
from headrace.credentials.tls_files import TlsFiles
from headrace.rpc.channels import aio_channel
from headrace.rpc.tls import mesh_security
from headrace.supervisor.servers.tls_store import TlsStore
from headrace.supervisor.state.state_dir import StateDir
from helpers.command import headrace
from helpers.running_mesh import RunningMesh, start, stop


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    folder = tmp_path_factory.mktemp("encrypted")
    scripted = ("--engine", "scripted", "--scripted-step-ms", "5")
    running = start(folder, *scripted, "--tls", "--auth", "keys", "--gateways", "2")
    yield running
    stop(running)


def _api(mesh: RunningMesh) -> openai.AsyncOpenAI:
    """A client that trusts what the state directory says now, and never repeats a request."""
    home = StateDir(mesh.folder)
    context = ssl.create_default_context(cafile=str(home.tls / "ca.crt"))
    return openai.AsyncOpenAI(
        base_url=f"{mesh.url}/v1",
        api_key=home.cli_key.read_text().strip(),
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(verify=context, trust_env=False),
    )


def _authorities(mesh: RunningMesh) -> int:
    return (mesh.folder / "tls" / "ca.crt").read_bytes().count(b"BEGIN CERTIFICATE")


async def _stream(api: openai.AsyncOpenAI, mesh: RunningMesh) -> str:
    chunks = await api.completions.create(
        model=mesh.model, prompt="Hello", max_tokens=16, stream=True
    )
    return "".join([chunk.choices[0].text async for chunk in chunks if chunk.choices])


async def _run(mesh: RunningMesh, *arguments: str) -> str:
    ran = await headrace(*arguments, "--state-dir", str(mesh.folder), folder=mesh.folder)
    assert ran.status == 0, ran.out + ran.err
    return ran.out


async def test_the_openai_client_streams_with_the_meshs_authority(mesh: RunningMesh) -> None:
    assert mesh.url.startswith("https://")
    async with _api(mesh) as api:
        assert await _stream(api, mesh)


async def test_commands_of_the_state_directory_need_no_options(mesh: RunningMesh) -> None:
    assert await _run(mesh, "generate", "Hello", "--max-tokens", "3")
    assert "healthy" in await _run(mesh, "status")
    assert "no dead letters" in await _run(mesh, "dead-letters")


async def test_files_pass_encrypted_both_ways(mesh: RunningMesh) -> None:
    file = mesh.folder / "rows.jsonl"
    file.write_bytes(bytes(1 << 20))
    file_id = (await _run(mesh, "file", "upload", str(file))).strip()
    await _run(mesh, "file", "download", file_id, str(mesh.folder / "copy"))
    assert (mesh.folder / "copy").read_bytes() == file.read_bytes()
    async with _api(mesh) as api:
        assert (await api.files.content(file_id)).content == file.read_bytes()


def _client(mesh: RunningMesh) -> AsyncClient:
    home = StateDir(mesh.folder)
    key = home.cli_key.read_text().strip()
    return AsyncClient(mesh.url, api_key=key, ca_file=home.tls / "ca.crt")


async def test_readers_reach_a_request_of_the_other_gateway(mesh: RunningMesh) -> None:
    """Of ten connections about half go to the gateway that has not got the request."""
    async with _client(mesh) as client:
        sent = await client.generate_in_background("Hello", model=mesh.model, max_tokens=400)

        async def read() -> str:
            async with _client(mesh) as reader:
                events = reader.attach(sent.request_id, reattach=False)
                return "".join([event.delta.text async for event in events])

        texts = await asyncio.gather(*(read() for _ in range(10)))
    assert len(set(texts)) == 1
    assert texts[0]


async def test_no_inner_line_takes_a_stranger(mesh: RunningMesh) -> None:
    """Neither a gateway's two ports nor control nor the broker, even with the broker's password."""
    home = StateDir(mesh.folder)
    for process in home.read_record().processes:
        for name in ("grpc", "delivery"):
            if (port := process.ports.get(name)) is None:
                continue
            for credentials in (None, (home.tls / "ca.crt").read_bytes()):
                await _assert_refused(port, credentials)
    (broker,) = (p for p in home.read_record().processes if p.role == "nats")
    with pytest.raises(BusUnavailable, match="certificate"):
        await connect(
            f"nats://127.0.0.1:{broker.ports['nats']}",
            name="stranger",
            wait_s=1.0,
            credentials_file=home.secrets.credentials("operator"),
        )


@pytest.mark.parametrize(
    ("port", "method", "refused"),
    [
        ("grpc", "/headrace.v1.ModelService/ListModels", ("worker", "gateway", "nats")),
        ("delivery", "/headrace.internal.v1.AttachService/Attach", ("worker", "envoy")),
        ("delivery", "/headrace.internal.v1.DeliveryService/Deliver", ("gateway", "envoy")),
    ],
)
async def test_processes_of_the_mesh_call_only_what_their_role_needs(
    mesh: RunningMesh, port: str, method: str, refused: tuple[str, ...]
) -> None:
    store = TlsStore(StateDir(mesh.folder).tls)
    gateway = StateDir(mesh.folder).read_process("gateway-0")
    for role in refused:
        security = mesh_security(TlsFiles(store.paths(role)), "gateway")
        async with aio_channel(f"127.0.0.1:{gateway.ports[port]}", security=security) as channel:
            call: Any = channel.unary_unary(method)
            with pytest.raises(grpc.aio.AioRpcError, match=f"a {role} may not call") as denied:
                await call(b"", timeout=5)
            assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def _assert_refused(port: int, ca: bytes | None) -> None:
    target = f"127.0.0.1:{port}"
    trusted = None if ca is None else grpc.ssl_channel_credentials(ca)
    opened = (
        grpc.aio.insecure_channel(target)
        if trusted is None
        else grpc.aio.secure_channel(target, trusted)
    )
    async with opened as channel:
        call: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_no_request_fails_while_everything_is_signed_anew(mesh: RunningMesh) -> None:
    answers, stop_load = 0, asyncio.Event()

    async def load(*, reconnects: bool) -> None:
        nonlocal answers
        while not stop_load.is_set():
            async with _api(mesh) as api:
                for _ in range(1 if reconnects else 50):
                    assert await _stream(api, mesh)
                    answers += 1
                    if stop_load.is_set():
                        return

    async with asyncio.TaskGroup() as group:
        loads = [group.create_task(load(reconnects=each)) for each in (True, True, False)]
        for arguments in (("rotate",), ("rotate", "--authority"), ("forget-authorities",)):
            await _run(mesh, "tls", *arguments)
            await asyncio.sleep(2)
        stop_load.set()
        await asyncio.gather(*loads)
    assert answers > 100
    # The authority that signs now is the only one, also for who connects from now on.
    assert _authorities(mesh) == 1
    await test_commands_of_the_state_directory_need_no_options(mesh)
