"""headrace up"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from headrace.cli.console.options import state_dir_option
from headrace.cli.mesh import detach as detached
from headrace.cli.mesh.progress import LiveTable, ParentPipe, PlainLines, ProgressDisplay
from headrace.cli.mesh.welcome import show_welcome
from headrace.supervisor.mesh import Mesh, MeshCallbacks
from headrace.supervisor.plan.mesh_options import (
    DEFAULT_MODEL,
    SCRIPTED_MODEL,
    EngineKind,
    MeshOptions,
    ModelSource,
    parse_models,
    parse_setting,
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
    "URL), and the names to serve it under, the first of which answers carry; may be given several "
    "times. Default: valley, the small model that comes with Headrace.",
)
@click.option(
    "--name",
    "names",
    metavar="NAME[,ALIAS...]",
    multiple=True,
    help="Names of a --model whose source has an equals sign in it. One for each --model, in their "
    "order, or none.",
)
@click.option("--workers", default=1, show_default=True, help="Workers of each model.")
@click.option("--gateways", default=1, show_default=True, help="Gateways behind Envoy.")
@click.option("--schedulers", default=1, show_default=True, help="One leads, the others stand by.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Public port; 0 picks a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Public address; 0.0.0.0, or :: for IPv6, opens the mesh to the network, without "
    "authentication.",
)
@state_dir_option
@click.option(
    "--engine",
    type=click.Choice([kind.value for kind in EngineKind]),
    default=EngineKind.TRANSFORMERS.value,
    show_default=True,
    help="llama-cpp, vllm: extras of these names; openai: any server with OpenAI's API; "
    "scripted: text computed from the prompt, without a model, for tests and benches.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="What the model computes in; float16 needs a GPU.",
)
@click.option(
    "--quantization",
    type=click.Choice(["none", "int8"]),
    help="How its weights are stored; int8 needs headrace[int8].",
)
@click.option("--threads", type=click.IntRange(min=1), help="Of each worker's forward pass.")
@click.option(
    "--scripted-step-ms",
    type=click.FloatRange(min=0),
    help="Time per step of the scripted engine.",
)
@click.option(
    "--set",
    "settings",
    metavar="SERVICE.NAME=VALUE",
    multiple=True,
    help="Any setting of gateway, scheduler or worker, as in worker.max_slots=8; "
    "`python -m headrace_worker --help` lists them. And nats.sync_interval, 2m unless set.",
)
@click.option(
    "--ready-within",
    "ready_within_s",
    default=900.0,
    show_default=True,
    help="Seconds for models to be fetched and loaded.",
)
@click.option(
    "--replace-after",
    "replace_after_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds without an answer after which a process that hangs is started again; 0: never.",
)
@click.option("--detach", is_flag=True, help="Return once a token has come through; stay up.")
@click.option("--tell-parent", type=int, hidden=True)
def up(
    models: tuple[str, ...],
    names: tuple[str, ...],
    engine: str,
    state_dir: Path,
    detach: bool,
    tell_parent: int | None,
    **options: object,
) -> None:
    """Start a mesh on this machine and stay until Ctrl-C.

    State, logs and queued requests are kept in ./.headrace of the current directory, so that
    meshes started in two directories are two meshes; --state-dir chooses another.
    """
    kind = EngineKind(engine)
    default = SCRIPTED_MODEL if kind is EngineKind.SCRIPTED else DEFAULT_MODEL
    mesh_options = MeshOptions(
        state_dir=state_dir.absolute(),
        models=tuple(map(_present, parse_models(models, names))) or (default,),
        engine=kind,
        settings=tuple(map(parse_setting, _all_settings(options))),
        **{name: options[name] for name in detached.PLAIN_OPTIONS},  # type: ignore[arg-type]
    )
    if detach:
        sys.exit(detached.start(mesh_options))
    asyncio.run(_run(mesh_options, _shown(tell_parent)))


def _present(model: ModelSource) -> ModelSource:
    """Refuse a missing folder or file now: a worker would only find out after loading torch."""
    if model.source.startswith((".", "/", "~")) and not Path(model.source).expanduser().exists():
        raise InvalidOption(f"--model {model.source!r}: there is no folder or file {model.source}")
    return model


def _all_settings(options: dict[str, object]) -> list[str]:
    """`--set` and the short cuts for it; the later wins, so `--set` does."""
    step_ms = options["scripted_step_ms"]
    short = {
        "worker.dtype": options["dtype"],
        "worker.quantization": options["quantization"],
        "worker.threads": options["threads"],
        "worker.scripted_step_s": None if step_ms is None else float(str(step_ms)) / 1000,
    }
    chosen = [f"{name}={value}" for name, value in short.items() if value is not None]
    settings = options["settings"]
    assert isinstance(settings, tuple)
    return [*chosen, *settings]


def _shown(tell_parent: int | None) -> ProgressDisplay:
    if tell_parent is not None:
        return ParentPipe(tell_parent)
    console = Console()
    return LiveTable(console) if console.is_terminal else PlainLines()


async def _run(options: MeshOptions, shown: ProgressDisplay) -> None:
    home = StateDir(options.state_dir)
    stop, hurry = asyncio.Event(), asyncio.Event()
    _listen_to_signals(stop, hurry)

    async def ready(url: str, models: Sequence[str]) -> None:
        shown.ready(url)
        shown.settle()
        if not isinstance(shown, ParentPipe):
            await show_welcome(url, models)

    try:
        with home.held():
            home.rotate_logs()
            mesh = Mesh(options, home, MeshCallbacks(shown.progress, ready))
            await mesh.run(stop=stop, hurry=hurry)
    except* MeshError as group:
        first = _first(group)
        shown.failed(str(first))
        raise first from None
    finally:
        shown.settle()


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _listen_to_signals(stop: asyncio.Event, hurry: asyncio.Event) -> None:
    """The first asks for a drain, the second for an end."""

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
