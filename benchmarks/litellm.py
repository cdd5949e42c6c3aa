"""Requests per CPU second with keys, beside LiteLLM's proxy: same client, same machine, in turns.

LiteLLM is one process with its master key, in front of a server that answers every chat at once and
is not counted. It has no database: its client for PostgreSQL needs a program that is downloaded
from binaries.prisma.sh at installation. So it checks one key in memory and stores no usage, which
costs it less than keys of its own would.

Headrace is a whole mesh with keys, limits of every kind, a price, and each request a row of usage.
All its processes are counted: `mesh` without the worker, which is what LiteLLM's upstream is,
`mesh and worker` with it.

python -m venv /tmp/litellm && /tmp/litellm/bin/pip install 'litellm[proxy]==1.108.7'
python benchmarks/litellm.py /tmp/litellm/bin/litellm --rounds 15 \
    --json benchmarks/results/litellm.json
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import httpx
import psutil

import rig
from chats import IN_FLIGHT, Cost, cost_of_chats, send_chats
from quota_cost import UP, begin

REQUESTS = 200
MASTER_KEY = "sk-benchmark"
STARTS_S = 120
UPSTREAM = Path(__file__).with_name("litellm_stub.py")


@contextlib.contextmanager
def litellm(program: str) -> Iterator[tuple[str, psutil.Process]]:
    """A proxy and its upstream; yields the proxy's URL and process."""
    upstream, port = free_port(), free_port()
    base = f"http://127.0.0.1:{upstream}/v1"
    config = {
        "model_list": [
            {
                "model_name": "scripted",
                "litellm_params": {
                    "model": "openai/scripted",
                    "api_base": base,
                    "api_key": "none",
                },
            }
        ],
        "general_settings": {"master_key": MASTER_KEY},
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="litellm-")))
        (folder / "config.yaml").write_text(json.dumps(config))
        stub = (sys.executable, str(UPSTREAM), str(upstream))
        serve = (program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port))
        stack.enter_context(started(stub, folder))
        process = stack.enter_context(started(serve, folder))
        url = f"http://127.0.0.1:{port}"
        await_health(url)
        yield url, psutil.Process(process.pid)


@contextlib.contextmanager
def started(command: tuple[str, ...], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    # Why the local map: prices are fetched from the network otherwise.
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def await_health(url: str) -> None:
    end_s = time.monotonic() + STARTS_S
    while time.monotonic() < end_s:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/liveliness", trust_env=False).is_success:
                return
        time.sleep(0.5)
    sys.exit(f"litellm does not answer at {url} after {STARTS_S} s")


def cost_of_proxy(url: str, process: psutil.Process) -> Cost:
    family = [process, *process.children(recursive=True)]

    def used_s() -> float:
        return sum(sum(each.cpu_times()[:2]) for each in family)

    before_s, began_s = used_s(), time.perf_counter()
    asyncio.run(send_chats(url, REQUESTS, key=MASTER_KEY))
    cpu_ms = round((used_s() - before_s) / REQUESTS * 1000, 3)
    wall_s = round(time.perf_counter() - began_s, 2)
    return Cost("litellm", cpu_ms, {"litellm": cpu_ms}, wall_s)


def without_worker(run: Cost) -> float:
    return sum(ms for name, ms in run.by_process.items() if not name.startswith("worker"))


def main() -> None:
    parser = rig.options(__doc__ or "")
    parser.add_argument("litellm", help="LiteLLM's program")
    arguments = parser.parse_args()
    if not Path(arguments.litellm).exists():
        print(f"skipped: {arguments.litellm} is not there; install it as the top of this file says")
        return
    before = rig.facts()
    ours, theirs = [], []
    with rig.mesh_in_folder(*UP) as folder, litellm(arguments.litellm) as (url, process):
        key = begin(folder, "limits", sys.executable).key
        for turn in range(arguments.rounds + 1):
            pair = (
                cost_of_chats(folder, "headrace", REQUESTS, key=key),
                cost_of_proxy(url, process),
            )
            if turn:  # The first one warms up.
                ours.append(pair[0])
                theirs.append(pair[1])
    costs = {
        "litellm": [run.cpu_ms_per_request for run in theirs],
        "mesh": [without_worker(run) for run in ours],
        "mesh and worker": [run.cpu_ms_per_request for run in ours],
    }
    pairs = {name: zip(costs["litellm"], of, strict=True) for name, of in costs.items()}
    ratios = {
        name: round(rig.median([their / our for their, our in of]), 2) for name, of in pairs.items()
    }
    rig.show(
        ("with keys", "CPU each request", "requests per CPU second", "of LiteLLM's"),
        [
            (name, f"{rig.median(of):.2f} ms", f"{1000 / rig.median(of):.0f}", f"{ratios[name]}x")
            for name, of in costs.items()
        ],
    )
    version = subprocess.run([arguments.litellm, "--version"], capture_output=True, text=True)
    results = {
        "litellm": version.stdout.strip(),
        "litellm_database": None,
        "requests": REQUESTS,
        "in_flight": IN_FLIGHT,
        "median_ratio_of_turns": ratios,
        "runs": [asdict(run) for run in (*ours, *theirs)],
    }
    rig.keep(arguments.json, before, results)


if __name__ == "__main__":
    main()
