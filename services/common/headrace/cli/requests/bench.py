"""headrace bench"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from functools import partial

import click

from headrace.bench.cpu import cpu_seconds, difference
from headrace.bench.figures import Figures, Outcome, Spread, figures
from headrace.bench.load import Load, run
from headrace.cli.console import terminal
from headrace.cli.console.options import (
    CommaSeparated,
    MeshTarget,
    json_option,
    mesh_options,
    model_option,
)
from headrace.cli.requests.generate import first_model
from headrace.supervisor.state.state_dir import MeshRecord


@click.command()
@model_option
@click.option(
    "--concurrency",
    type=CommaSeparated(click.IntRange(min=1)),
    metavar="N,N,...",
    default="1,8,32",
    help="Requests open at once; a run for each number.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    help="Requests of each run. Default: eight times the concurrency, at least 64.",
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=32, help="Most output tokens of a request."
)
@click.option(
    "--prompt-words", type=click.IntRange(min=1), default=32, help="Words of each prompt."
)
@click.option("--temperature", type=float, default=0.0, help="0 is greedy decoding.")
@click.option("--ignore-eos", is_flag=True, help="Generate --max-tokens tokens for every request.")
@click.option("--chat/--completions", default=True, help="OpenAI endpoint to use.")
@click.option(
    "--stream/--no-stream", default=True, help="Read server-sent events, or whole answers."
)
@json_option
@mesh_options
def bench(
    mesh: MeshTarget,
    model: str | None,
    concurrency: tuple[int, ...],
    requests: int | None,
    as_json: bool,
    **load_options: int | float | bool,
) -> int:
    """Measure throughput and latency of a mesh under load. Exit with 1 if a request failed."""
    with mesh.client() as client:
        name = model or first_model(client)
    load = Load(mesh.url, name, **load_options)  # type: ignore[arg-type]
    record = mesh.state_dir.read_record() if mesh.is_local else None
    send = partial(run, load, api_key=mesh.using_key(), trust=mesh.trust())
    asyncio.run(send(concurrency=1, requests=1))
    runs = [_measure(send, record, each, requests or max(64, 8 * each)) for each in concurrency]
    if as_json:
        click.echo(json.dumps({"load": asdict(load), "runs": [asdict(run) for run in runs]}))
    else:
        _print(load, runs)
    return 1 if any(run.errors for run in runs) else 0


def _measure(
    send: Callable[..., Coroutine[object, object, list[Outcome]]],
    mesh: MeshRecord | None,
    concurrency: int,
    requests: int,
) -> Figures:
    """Run the load; without a mesh on this machine, no CPU time is known but that of the client."""
    before, own_before_s = cpu_seconds(mesh), time.process_time()
    outcomes = asyncio.run(send(concurrency=concurrency, requests=requests))
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
