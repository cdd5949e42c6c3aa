"""headrace up"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from headrace.cli.console.options import MeshTarget, state_dir_option
from headrace.cli.mesh import background
from headrace.cli.mesh.progress import ParentPipe, ProgressDisplay, display
from headrace.cli.mesh.welcome import show_welcome
from headrace.extras import require
from headrace.supervisor.mesh import Mesh
from headrace.supervisor.plan.mesh_options import (
    DEFAULT_MODEL,
    SCRIPTED_MODEL,
    Auth,
    EngineKind,
    MeshOptions,
    ModelSource,
    parse_models,
    parse_setting,
    with_parsers,
)
from headrace.supervisor.state.failures import InvalidOption, MeshError
from headrace.supervisor.state.state_dir import StateDir


@click.command()
@click.option(
    "--model",
    "models",
    metavar="SOURCE[=NAME[,ALIAS...]]",
    multiple=True,
    help="Folder of a transformers model or a Hugging Face hub id (llama-cpp: GGUF file, openai: "
    "URL), and the names to serve it under. Answers carry the first. Repeat for more models. "
    "Default: valley, the small model that comes with Headrace.",
)
@click.option(
    "--name",
    "names",
    metavar="NAME[,ALIAS...]",
    multiple=True,
    help="Names of a --model whose source contains an equals sign. Give one for each --model, in "
    "their order, or none.",
)
@click.option(
    "--tool-parser",
    "tool_parsers",
    metavar="NAME",
    multiple=True,
    help="How the models write tool calls, by vLLM's names: hermes, llama3_json, mistral, …, or "
    "none; by default it is found in the chat template. Give one for all, or one for each --model.",
)
@click.option(
    "--reasoning-parser",
    "reasoning_parsers",
    metavar="NAME",
    multiple=True,
    help="How they write reasoning, likewise: qwen3, deepseek_r1, openai_gptoss, …, or none.",
)
@click.option("--workers", default=1, help="Workers of each model.")
@click.option("--gateways", default=1, help="Gateways behind Envoy.")
@click.option("--schedulers", default=1, help="Schedulers. One leads, the others stand by.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, help="Public port; 0 picks a free one."
)
@click.option(
    "--host",
    default="127.0.0.1",
    help="Public address. 0.0.0.0, or :: for IPv6, opens the mesh to the network, which needs "
    "--auth keys or --insecure.",
)
@click.option(
    "--auth",
    type=click.Choice([auth.value for auth in Auth]),
    default=Auth.NONE.value,
    help="keys: every call needs an API key; the first ones are written to --state-dir. none: "
    "whoever reaches the public port may do everything.",
)
@click.option("--web/--no-web", default=True, help="Whether to serve the page, at /ui/.")
@click.option("--insecure", is_flag=True, help="Let other machines use the mesh without keys.")
@click.option(
    "--tls",
    is_flag=True,
    help="Serve https, and encrypt every line between the processes. Certificates are made in the "
    "tls directory of --state-dir and renewed under way; clients trust its ca.crt.",
)
@click.option(
    "--tls-cert",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="Certificate for clients, with those between it and its authority, in PEM; with --tls-key."
    " It is read again when it changes. Implies --tls.",
)
@click.option(
    "--tls-key",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="Key of --tls-cert, in PEM; only you may be able to read it.",
)
@click.option(
    "--tls-name",
    "tls_names",
    metavar="NAME",
    multiple=True,
    help="Further host name at which clients reach the mesh, for the certificate that --tls makes.",
)
@click.option(
    "--trusted-proxies",
    type=click.IntRange(0, 16),
    default=0,
    help="Proxies in front of the public port whose X-Forwarded-For says which client they serve.",
)
@click.option(
    "--allow-origin",
    "allowed_origins",
    metavar="ORIGIN",
    multiple=True,
    help="Origin of pages in browsers that may call the mesh, as https://app.example.com. Repeat "
    "for more. On loopback this machine's own pages may always.",
)
@state_dir_option
@click.option(
    "--engine",
    type=click.Choice([kind.value for kind in EngineKind]),
    default=EngineKind.TRANSFORMERS.value,
    help="llama-cpp and vllm need the extras of these names; openai is any server with OpenAI's "
    "API; scripted computes text from the prompt without a model, for tests and benchmarks.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Type that the model computes in; float16 needs a GPU.",
)
@click.option(
    "--quantization",
    type=click.Choice(["none", "int8"]),
    help="Type that its weights are stored in; int8 needs headrace[int8].",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of each worker's forward pass."
)
@click.option(
    "--scripted-step-ms",
    type=click.FloatRange(min=0),
    help="Time of a step of the scripted engine.",
)
@click.option(
    "--set",
    "settings",
    metavar="SERVICE.NAME=VALUE",
    multiple=True,
    help="Set any setting of gateway, scheduler, worker or control, as in worker.max_slots=8; "
    "`python -m headrace_worker --help` lists them. Or nats.sync_interval, by default 2m.",
)
@click.option(
    "--ready-within",
    "ready_within_s",
    default=900.0,
    help="Fail if the models are not downloaded and loaded in this many seconds.",
)
@click.option(
    "--replace-after",
    "replace_after_s",
    type=click.FloatRange(min=0),
    default=30.0,
    help="Restart a process that has not answered for this many seconds; 0: never.",
)
@click.option(
    "--detach",
    is_flag=True,
    help="Run the mesh in the background; return once it has served a token.",
)
@click.option("--report-fd", type=int, hidden=True)
def up(
    *,
    models: tuple[str, ...],
    names: tuple[str, ...],
    tool_parsers: tuple[str, ...],
    reasoning_parsers: tuple[str, ...],
    engine: str,
    auth: str,
    settings: tuple[str, ...],
    dtype: str | None,
    quantization: str | None,
    threads: int | None,
    scripted_step_ms: float | None,
    state_dir: StateDir,
    detach: bool,
    report_fd: int | None,
    **options: Any,
) -> None:
    """Start a mesh on this machine and run it until Ctrl-C.

    State, logs and queued requests are kept in ./.headrace of the current directory, so that
    two directories have two meshes; --state-dir chooses another.
    """
    for module in ("nats", "envoy", "psutil"):
        require("mesh", module)
    require("control", "sqlalchemy")
    if options["web"]:
        require("web", "starlette")
    kind = EngineKind(engine)
    default = SCRIPTED_MODEL if kind is EngineKind.SCRIPTED else DEFAULT_MODEL
    step_s = None if scripted_step_ms is None else scripted_step_ms / 1000
    short_forms = _worker_settings(
        dtype=dtype, quantization=quantization, threads=threads, scripted_step_s=step_s
    )
    chosen = {"tool_parser": tool_parsers, "reasoning_parser": reasoning_parsers}
    sources = tuple(map(_existing, parse_models(models, names))) or (default,)
    mesh_options = MeshOptions(
        models=with_parsers(sources, chosen),
        engine=kind,
        auth=Auth(auth),
        # The last value of a setting counts, so `--set` wins.
        settings=tuple(map(parse_setting, (*short_forms, *settings))),
        **options,
    )
    if detach and report_fd is None:
        sys.exit(background.start(state_dir))
    shown = display() if report_fd is None else ParentPipe(report_fd)
    asyncio.run(_run(mesh_options, state_dir, shown))


def _existing(model: ModelSource) -> ModelSource:
    """Reject a missing folder or file now: a worker would notice only after importing torch."""
    if model.source.startswith((".", "/", "~")) and not Path(model.source).expanduser().exists():
        raise InvalidOption(f"--model {model.source!r}: there is no folder or file {model.source}")
    return model


def _worker_settings(**values: str | float | None) -> list[str]:
    return [f"worker.{name}={value}" for name, value in values.items() if value is not None]


async def _run(options: MeshOptions, state_dir: StateDir, shown: ProgressDisplay) -> None:
    stop, kill = asyncio.Event(), asyncio.Event()
    _handle_signals(stop, kill)

    async def ready(url: str, models: Sequence[str]) -> None:
        shown.ready(url)
        shown.finish()
        if not isinstance(shown, ParentPipe):
            needs_keys = options.auth is Auth.KEYS
            await show_welcome(MeshTarget(url, state_dir), models, needs_keys=needs_keys)

    try:
        with state_dir.lock():
            state_dir.rotate_logs()
            mesh = Mesh(options, state_dir, report=shown.progress, on_ready=ready)
            await mesh.run(stop=stop, kill=kill)
    except* MeshError as group:
        first = _first(group)
        shown.failed(str(first))
        raise first from None
    finally:
        shown.finish()


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _handle_signals(stop: asyncio.Event, kill: asyncio.Event) -> None:
    """The first signal drains the mesh, the second kills it."""

    def on_signal() -> None:
        (kill if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
