"""headrace bench"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict

import click

from headrace.bench.cpu import cpu_seconds, difference
from headrace.bench.figures import Figures, Spread, figures
from headrace.bench.load import Load, run
from headrace.cli.console import terminal
from headrace.cli.console.options import json_option, mesh_options, mesh_url, model_option
from headrace.cli.requests.generate import first_model
from headrace.client import Client
from headrace.supervisor.state.failures import MeshNotRunning
from headrace.supervisor.state.state_dir import MeshRecord, StateDir


class Numbers(click.ParamType[tuple[int, ...]]):
    """Comma-separated, from 1."""

    name = "N,N,..."

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            numbers = tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 1,8,32", param, ctx)
        if min(numbers) < 1:
            self.fail(f"{min(numbers)} requests at once are not possible", param, ctx)
        return numbers


@click.command()
@model_option
@click.option(
    "--concurrency",
    type=Numbers(),
    default="1,8,32",
    show_default=True,
    help="Requests open at once; a run for each number.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    help="Requests of each run. Default: eight times the concurrency, at least 64.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Most output tokens of a request.",
)
@click.option(
    "--prompt-words",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Words of each prompt.",
)
@click.option(
    "--temperature", type=float, default=0.0, show_default=True, help="0 is greedy decoding."
)
@click.option("--ignore-eos", is_flag=True, help="Generate --max-tokens tokens for every request.")
@click.option("--chat/--completions", default=True, help="OpenAI endpoint to use.")
@click.option(
    "--stream/--no-stream", default=True, help="Read server-sent events, or whole answers."
)
@json_option
@mesh_options
def bench(
    url: str | None,
    state_dir: StateDir,
    model: str | None,
    concurrency: tuple[int, ...],
    requests: int | None,
    as_json: bool,
    **load_options: int | float | bool,
) -> int:
    """Measure throughput and latency of a mesh under load. Exit with 1 if a request failed."""
    target = mesh_url(url, state_dir)
    with Client(target) as client:
        name = model or first_model(client)
    load = Load(target, name, **load_options)  # type: ignore[arg-type]
    mesh = _local_mesh(url, state_dir)
    asyncio.run(run(load, concurrency=1, requests=1))
    runs = [_measure(load, mesh, each, requests or max(64, 8 * each)) for each in concurrency]
    if as_json:
        click.echo(json.dumps({"load": asdict(load), "runs": [asdict(run) for run in runs]}))
    else:
        _print(load, runs)
    return 1 if any(run.errors for run in runs) else 0


def _local_mesh(url: str | None, state_dir: StateDir) -> MeshRecord | None:
    """Return the mesh whose CPU time can be read; None if it runs on another machine."""
    try:
        record = state_dir.read_record()
    except MeshNotRunning:
        return None
    return record if url in (None, record.url) else None


def _measure(load: Load, mesh: MeshRecord | None, concurrency: int, requests: int) -> Figures:
    before, own_before_s = cpu_seconds(mesh), time.process_time()
    outcomes = asyncio.run(run(load, concurrency=concurrency, requests=requests))
    return figures(
        outcomes,
        concurrency=concurrency,
        cpu_s=difference(before, cpu_seconds(mesh)),
        client_cpu_s=time.process_time() - own_before_s,
    )


def _print(load: Load, runs: list[Figures]) -> None:
    console = terminal.console()
    console.print(f"{load.model} at {load.url}{load.path}, at most {load.max_tokens} tokens")
    table = terminal.table(
        *("concurrency", "requests/s", "tokens/s", "TTFT p50 / p99", "gap p50 / p99"),
        *("tokens/CPU s", "errors"),
    )
    for run_figures in runs:
        table.add_row(
            str(run_figures.concurrency),
            f"{run_figures.requests_per_s:.1f}",
            f"{run_figures.output_tokens_per_s:.0f}",
            _percentiles(run_figures.ttft),
            _percentiles(run_figures.inter_token),
            str(run_figures.output_tokens_per_cpu_s or "-"),
            str(run_figures.errors),
        )
    console.print(table)
    for run_figures in runs:
        cpu = ", ".join(f"{name} {used:.2f}" for name, used in run_figures.cpu_s.items())
        console.print(f"CPU s at {run_figures.concurrency}: {cpu or 'not on this machine'}")
        for example in run_figures.error_examples:
            console.print(f"error: {example}", markup=False)


def _percentiles(found: Spread) -> str:
    if found.p50_ms is None or found.p99_ms is None:
        return "-"
    return f"{found.p50_ms:.1f} / {found.p99_ms:.1f} ms"
