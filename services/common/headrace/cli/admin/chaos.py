"""headrace chaos"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from headrace.bench.figures import Spread
from headrace.chaos.faults import FaultKind
from headrace.chaos.history import EventLog, read
from headrace.chaos.judge import judge
from headrace.chaos.run import Run
from headrace.chaos.scorecard import Scorecard, scorecard
from headrace.cli.admin.chaos_tenants import chaos_tenants
from headrace.cli.console import terminal
from headrace.cli.console.options import CommaSeparated, MeshTarget, mesh_options
from headrace.clock import SystemClock
from headrace.supervisor.state.failures import InvalidOption

_DEFAULT_FAULTS = (FaultKind.WORKER, FaultKind.SCHEDULER, FaultKind.FREEZE, FaultKind.NATS)
_REMOTE_FAULTS = (FaultKind.SLOW_READER,)
"""Faults of this command's clients, which need no access to the mesh's processes."""


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=1.0,
    help="How long to inject faults, at least one of each kind. Each request is first sent once "
    "undisturbed, which takes extra time.",
)
@click.option(
    "--faults",
    type=CommaSeparated(click.Choice([kind.value for kind in FaultKind])),
    metavar="KIND,KIND,...",
    help=f"Kinds of fault: {', '.join(FaultKind)}. Default: {','.join(_DEFAULT_FAULTS)}; with "
    "--url slow-reader, which needs no access to processes.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, 512),
    default=16,
    help="Clients, each of which sends one request after another.",
)
@click.option(
    "--rate",
    "rate_per_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Send this many requests a second instead, however many are open.",
)
@click.option("--seed", type=int, default=1, help="Seed of the requests and the faults.")
@click.option(
    "--requests", type=click.IntRange(1, 10_000), default=48, help="Number of different requests."
)
@click.option(
    "--pause",
    "pause_s",
    type=click.FloatRange(min=0),
    default=3.0,
    help="Longest time between two faults, in seconds.",
)
@click.option("--overlap", is_flag=True, help="Inject faults before the last one has recovered.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the scorecard to this file.",
)
@mesh_options
def chaos(
    mesh: MeshTarget, json_file: Path | None, faults: tuple[str, ...] | None, **run_options: Any
) -> int:
    """Kill and freeze processes of a mesh under load, and check every answer and every account.

    Exit with 1 if anything was lost, repeated, altered, failed or misbilled. The events of the run
    are kept in chaos.jsonl in --state-dir; with --url of another mesh, in the current directory.
    """
    kinds, url = _allowed(faults, is_local=mesh.is_local), mesh.url
    history = (mesh.state_dir.folder if mesh.is_local else Path.cwd()) / "chaos.jsonl"
    with history.open("w", encoding="utf-8") as file:
        log = EventLog(file, SystemClock())

        def report(fact: str) -> None:
            click.echo(f"{log.now_s:7.1f} s  {fact}", err=True)

        more = {**run_options, "admin_key": mesh.admin_key(), "trust": mesh.trust()}
        run = partial(Run, url, kinds, state_dir=mesh.state_dir, log=log, report=report, **more)
        asyncio.run(_run(mesh, log, run, minutes=run_options["minutes"]))
    card = scorecard(judge(read(history)))
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(card), indent=1) + "\n")
    _print(card, history)
    return 0 if card.passed else 1


async def _run(
    mesh: MeshTarget, log: EventLog, make: Callable[..., Run], *, minutes: float
) -> None:
    """Run with tenants of its own, so that no other has the run's requests, and read their rows.

    With a key of the environment, or without one that administers, the run has that key, or none.
    """
    if mesh.api_key or mesh.admin_key() is None:
        await make(api_keys=(mesh.using_key(),)).run()
        return
    async with chaos_tenants(mesh, minutes=minutes) as tenants:
        await make(api_keys=tenants.keys, batches=True).run()
        for event in await tenants.accounts(log.now_s, log.started):
            log.append(event)


def _allowed(faults: tuple[str, ...] | None, *, is_local: bool) -> tuple[FaultKind, ...]:
    if is_local:
        return tuple(map(FaultKind, dict.fromkeys(faults or _DEFAULT_FAULTS)))
    if impossible := [each for each in faults or () if each not in _REMOTE_FAULTS]:
        raise InvalidOption(
            f"--faults {','.join(impossible)}: the processes of a mesh at --url cannot be reached; "
            f"use {', '.join(_REMOTE_FAULTS)}, or leave out --url for the mesh of --state-dir"
        )
    return _REMOTE_FAULTS


def _print(card: Scorecard, history: Path) -> None:
    console = terminal.console()
    table = terminal.table(
        "fault", "count", "streams open", "resumed after p50 / max", "recovered after p50 / max"
    )
    for each in card.faults:
        recovered = _percentiles(each.mended)
        if each.never_mended:
            recovered += f", {each.never_mended} never"
        resumed = f"{_seconds(each.resumed.p50_ms)} / {_seconds(each.longest_resumed_ms)}"
        table.add_row(each.kind, str(each.count), str(each.streams_open), resumed, recovered)
    console.print(table)
    console.print(
        f"{card.model} ({card.engine}), seed {card.seed}: {card.requests} requests "
        f"({card.background} in the background, {card.batch_rows} rows of batches) in "
        f"{card.seconds:g} s, {card.completed} completed with {card.tokens} tokens, "
        f"{card.left_by_client} closed by their clients, {card.refused} rejected for capacity"
    )
    console.print(f"errors: {card.errors or 'none'}", markup=False)
    console.print(
        f"time to first delta p50 / p99 / max: {_percentiles(card.first_piece)} / "
        f"{_seconds(card.longest_first_piece_ms)}"
    )
    console.print(
        f"stalls p50 / p99 / max: {_percentiles(card.stall)} / {_seconds(card.longest_stall_ms)}"
    )
    console.print(
        f"lost {card.lost}, repeated {card.repeated}, altered "
        f"{card.altered if card.exact else 'not judged'}, failed {card.failed}, "
        f"misbilled {_misbilled(card)}, "
        f"resumed after the loss of a gateway {card.returned}, still held "
        f"{'unknown' if card.held is None else card.held}"
    )
    for finding in card.findings:
        console.print(finding, markup=False)
    console.print("[green]passed[/]" if card.passed else f"[red]failed[/]; see {history}")


def _misbilled(card: Scorecard) -> str:
    return "not judged" if card.rows is None else f"{card.misbilled} of {card.rows} rows"


def _percentiles(found: Spread) -> str:
    return f"{_seconds(found.p50_ms)} / {_seconds(found.p99_ms)}"


def _seconds(value_ms: float | None) -> str:
    return terminal.seconds(None if value_ms is None else value_ms / 1000)
