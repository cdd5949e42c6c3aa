"""headrace bench"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from headrace.bench.cpu import cpu_seconds, difference
from headrace.bench.figures import Figures, Spread, figures
from headrace.bench.load import Load, run
from headrace.cli.console import terminal
from headrace.cli.console.options import mesh_options, mesh_url
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
            self.fail(f"{min(numbers)} requests cannot be in flight", param, ctx)
        return numbers


@click.command()
@click.option("--model", help="Served name. Default: the first that the mesh has.")
@click.option(
    "--concurrency",
    type=Numbers(),
    default="1,8,32",
    show_default=True,
    help="Requests in flight; a run for each number.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    help="Of each run. Default: eight times the concurrency, at least 64.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--prompt-words", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True)
@click.option("--ignore-eos", is_flag=True, help="Every answer has --max-tokens tokens.")
@click.option("--chat/--completions", default=True, help="Which endpoint.")
@click.option("--stream/--no-stream", default=True, help="Server-sent events, or whole answers.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@mesh_options
def bench(
    url: str | None,
    state_dir: Path,
    model: str | None,
    concurrency: tuple[int, ...],
    requests: int | None,
    as_json: bool,
    **load_options: int | float | bool,
) -> int:
    """Put load on the mesh through its public door and measure; exit 1 if a request failed."""
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


def _local_mesh(url: str | None, state_dir: Path) -> MeshRecord | None:
    """The mesh whose processes can be asked for their CPU time; None if it is elsewhere."""
    try:
        record = StateDir(state_dir).read_record()
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
    console.print(f"{load.model} at {load.url}{load.path}, {load.max_tokens} tokens at most")
    table = terminal.table(
        *("in flight", "requests/s", "tokens/s", "TTFT p50 / p99", "gap p50 / p99"),
        *("tokens/CPU s", "errors"),
    )
    for run_figures in runs:
        table.add_row(
            str(run_figures.concurrency),
            f"{run_figures.requests_per_s:.1f}",
            f"{run_figures.output_tokens_per_s:.0f}",
            _shown(run_figures.ttft),
            _shown(run_figures.inter_token),
            str(run_figures.output_tokens_per_cpu_s or "-"),
            str(run_figures.errors),
        )
    console.print(table)
    for run_figures in runs:
        cpu = ", ".join(f"{name} {used:.2f}" for name, used in run_figures.cpu_s.items())
        console.print(f"CPU s at {run_figures.concurrency}: {cpu or 'not on this machine'}")
        for example in run_figures.error_examples:
            console.print(f"error: {example}", markup=False)


def _shown(found: Spread) -> str:
    if found.p50_ms is None or found.p99_ms is None:
        return "-"
    return f"{found.p50_ms:.1f} / {found.p99_ms:.1f} ms"
