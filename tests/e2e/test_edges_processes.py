"""A mesh with proxies in the environment, on IPv6, on a disk that fills up.

One mesh for all of it: on ::1, with unreachable proxies, on a disk of 24 MiB.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.client import AsyncClient, Client
from headrace.errors import HeadraceError
from headrace.supervisor.state.state_dir import ProcessRecord, StateDir
from headrace.testing.nats_server import nats_server
from headrace.v1.generation_pb2 import StreamGenerateResponse
from helpers.environment import lacks
from helpers.eventually import eventually
from helpers.service_process import service_process
from helpers.small_disk import SmallDisk, small_disk

PROXY = "http://127.0.0.1:9"
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
ENVIRONMENT = (
    os.environ
    | dict.fromkeys((*PROXIES, *(name.upper() for name in PROXIES)), PROXY)
    | {"no_proxy": "", "NO_PROXY": ""}
)
WITHIN_S = 60.0


@dataclass(frozen=True)
class EdgeMesh:
    folder: Path
    disk: SmallDisk | None
    url: str = ""

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headrace", *arguments, "--state-dir", str(self.folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=WITHIN_S,
            input=stdin,
            env=ENVIRONMENT,
        )

    def up(self) -> subprocess.CompletedProcess[str]:
        chosen = ("--engine", "scripted", "--scripted-step-ms", "20", "--replace-after", "3")
        return self.command("up", "--detach", "--port", "0", "--no-web", "--host", "::1", *chosen)

    def process(self, name: str) -> ProcessRecord:
        """As its supervisor last wrote."""
        return next(p for p in StateDir(self.folder).read_record().processes if p.name == name)

    def is_healthy(self) -> bool:
        return self.command("status").returncode == 0

    def completion(self, **fields: object) -> httpx.Response:
        body = {"model": "scripted", "prompt": "Hello", "max_tokens": 3, **fields}
        with httpx.Client(trust_env=False, timeout=30) as http:
            return http.post(f"{self.url}/v1/completions", json=body)


def until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.2)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeMesh]:
    if not has_ipv6():
        lacks("ipv6")
    folder = tmp_path_factory.mktemp("edges")
    with ExitStack() as stack:
        disk: SmallDisk | None = None
        try:
            disk = stack.enter_context(small_disk(folder / "disk"))
        except pytest.skip.Exception:
            (folder / "disk").mkdir(exist_ok=True)
        mesh = EdgeMesh(folder / "disk" / "state", disk)
        up = mesh.up()
        assert up.returncode == 0, up.stdout + up.stderr
        stack.callback(mesh.command, "down")
        yield EdgeMesh(mesh.folder, disk, StateDir(mesh.folder).read_record().url or "")


def test_commands_work_on_ipv6_with_unreachable_proxies_in_the_environment(edge: EdgeMesh) -> None:
    assert edge.url.startswith("http://[::1]:")
    assert edge.command("status").returncode == 0
    assert "scripted" in edge.command("lanes").stdout
    (worker,) = json.loads(edge.command("workers", "--json").stdout)
    assert (worker["models"], worker["draining"]) == (["scripted"], False)
    assert edge.command("generate", "Hello", "--max-tokens", "4").stdout.strip()
    assert edge.command("chat", "--max-tokens", "4", stdin="Hello\n").returncode == 0
    load = ("--concurrency", "2", "--requests", "4", "--max-tokens", "4")
    assert edge.command("bench", *load).returncode == 0


def test_commands_work_with_the_url_of_a_remote_mesh(edge: EdgeMesh, tmp_path: Path) -> None:
    nowhere = EdgeMesh(tmp_path, None)
    assert nowhere.command("status").returncode == 1
    ran = nowhere.command("status", "--url", edge.url)
    assert ran.returncode == 0, ran.stderr
    assert "model scripted" in ran.stdout
    assert nowhere.command("status", "--url", "http://[::1]:9").returncode == 1
    refused = nowhere.command("chaos", "--url", edge.url, "--faults", "worker")
    assert refused.returncode == 2
    assert "processes of a mesh at --url cannot be reached" in refused.stderr


def test_drain_reaches_a_remote_process_over_the_broker(edge: EdgeMesh, tmp_path: Path) -> None:
    nowhere, broker = EdgeMesh(tmp_path, None), edge.process("nats").ports["nats"]
    before = edge.process("scheduler-0")
    ran = nowhere.command("drain", "scheduler-0", "--nats-url", f"nats://127.0.0.1:{broker}")
    assert ran.returncode == 0, ran.stderr
    until(lambda: edge.process("scheduler-0").restarts > before.restarts)
    assert edge.process("scheduler-0").last_end == "ended with status 0"
    unknown = nowhere.command("drain", "missing", "--nats-url", f"nats://127.0.0.1:{broker}")
    assert unknown.returncode == 1
    assert "no process named missing is connected to nats://127.0.0.1" in unknown.stderr
    until(edge.is_healthy)


def test_a_process_that_hangs_is_replaced_and_status_shows_the_reason(edge: EdgeMesh) -> None:
    hung = edge.process("gateway-0")
    assert hung.pid is not None
    os.kill(hung.pid, signal.SIGSTOP)
    until(lambda: edge.process("gateway-0").restarts > hung.restarts)
    until(edge.is_healthy)
    assert "its last run was ended: does not answer /healthz" in edge.command("status").stdout
    until(lambda: edge.completion().status_code == httpx.codes.OK)


def test_a_full_disk_rejects_requests_with_its_name_ends_no_stream_and_recovers(
    edge: EdgeMesh,
) -> None:
    if edge.disk is None:
        lacks("mount")
    until(lambda: edge.completion().status_code == httpx.codes.OK)
    answers: list[int] = []
    with Client(edge.url) as client:
        stream = client.stream("Hello", model="scripted", max_tokens=600, ignore_eos=True)
        next(stream)
        reader = threading.Thread(target=lambda: answers.append(tokens_of(stream)))
        reader.start()
        edge.disk.fill()
        until(lambda: "no space left on device" in edge.completion().text)
        refused = edge.completion()
        ran = edge.command("status")
        reader.join()
    assert answers == [600]
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    fact = "the broker cannot store requests: no space left on device"
    assert refused.json()["error"]["message"] == fact
    assert ran.returncode == 1
    assert f"mounted at {edge.disk.folder}, which has 0.0 MiB of 24.0 MiB free" in ran.stdout
    edge.disk.free()
    until(lambda: edge.completion().status_code == httpx.codes.OK)
    until(edge.is_healthy)
    assert "no space left on device" in edge.process("nats").last_end


def tokens_of(stream: Iterator[StreamGenerateResponse]) -> int:
    """How many the answer has, once it has come to its end."""
    return [event.finish.usage.output_tokens for event in stream][-1]


@pytest.mark.parametrize("host", ["::1", "::"])
async def test_services_started_by_hand_connect_over_ipv6(tmp_path: Path, host: str) -> None:
    if not has_ipv6():
        lacks("ipv6")
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(nats_server(tmp_path, host="::1"))
        by: dict[str, Any] = {"nats_url": broker.url, "host": host, "insecure": host == "::"}
        model = {"engine": "scripted", "model_source": "scripted", "model_name": "scripted"}
        for module, more in (("headrace_scheduler", {}), ("headrace_worker", model)):
            await stack.enter_async_context(service_process(module, tmp_path, module, **by, **more))
        gateway = await stack.enter_async_context(
            service_process("headrace_gateway", tmp_path, "gateway", **by, lame_duck_s=0)
        )
        client = await stack.enter_async_context(AsyncClient(f"[::1]:{gateway.ports['grpc']}"))

        async def answers() -> bool:
            try:
                answer = await client.generate("Hello", model="scripted", max_tokens=3)
            except HeadraceError:
                return False
            return answer.usage.output_tokens == 3

        await eventually(answers, within_s=WITHIN_S)
        async with httpx.AsyncClient(trust_env=False) as http:
            port = gateway.ports["metrics"]
            assert (await http.get(f"http://[::1]:{port}/healthz")).text == "ok\n"


def test_a_mesh_is_not_started_on_a_full_disk_and_the_disk_is_reported(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        refused = EdgeMesh(disk.folder / "state", disk).up()
    assert refused.returncode == 1
    assert f"mounted at {disk.folder}, which has 0.0 MiB of 24.0 MiB free" in refused.stderr
