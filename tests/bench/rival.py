"""`transformers serve --continuous-batching`, in a virtual environment of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

VERSION = "5.23.0"
PACKAGES = (f"transformers[serving]=={VERSION}", "accelerate", "torch==2.13.0")
READY_S = 300
STOP_S = 20
# Without a GPU it has no memory figure to size its cache from, so the size is given; this is
# room for all that the load has in flight.
CACHE = ("--cb-block-size", "32", "--cb-num-blocks", "1024", "--cb-max-batch-tokens", "512")
# One thread, as ours has; and nothing here needs a hub.
ENVIRONMENT = (
    *("OMP_NUM_THREADS=1", "TOKENIZERS_PARALLELISM=false"),
    *("HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "HF_HUB_DISABLE_TELEMETRY=1"),
)


@dataclass(frozen=True, slots=True)
class Rival:
    url: str
    model: str
    """What it calls the model: its folder."""
    pid: int

    def cpu_s(self) -> float:
        """Of it and all that it started, since then."""
        root = psutil.Process(self.pid)
        times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
        return sum(each.user + each.system for each in times)


def installed(folder: Path) -> Path:
    """Its program; installed with pip the first time, some minutes and 1 GB."""
    program = folder / "bin" / "transformers"
    stamp = folder / f".installed-{VERSION}"
    if not stamp.exists():
        print(f"installing {', '.join(PACKAGES)} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *PACKAGES)
        subprocess.run(pip, check=True)
        stamp.touch()
    return program


@contextlib.contextmanager
def serving(program: Path, weights: Path, log: Path) -> Iterator[Rival]:
    """Serve a folder of weights for the length of a `with`."""
    port = _free_port()
    serve = (str(program), "serve", str(weights), "--host", "127.0.0.1", "--port", str(port))
    how = ("--device", "cpu", "--dtype", "float32", "--continuous-batching", *CACHE)
    with log.open("wb") as output:
        process = subprocess.Popen(
            ("env", *ENVIRONMENT, *serve, *how),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_well(url, process, log)
        yield Rival(url, str(weights), process.pid)
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_well(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        time.sleep(0.3)
    sys.exit(f"transformers serve did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
