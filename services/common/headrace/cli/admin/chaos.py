"""headrace torture"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import click

from headrace.bench.figures import Spread
from headrace.chaos.faults import FaultKind
from headrace.chaos.history import EventLog, read
from headrace.chaos.judge import judge
from headrace.chaos.run import Run, RunOptions
from headrace.chaos.scorecard import Scorecard, scorecard
from headrace.cli.console import terminal
from headrace.cli.console.options import is_local, mesh_options, mesh_url
from headrace.clock import SystemClock
from headrace.supervisor.state.failures import InvalidOption
from headrace.supervisor.state.state_dir import StateDir

_DEFAULT_FAULTS = "worker,scheduler,freeze,nats"
_WITHOUT_PROCESSES = (FaultKind.SLOW_READER,)
"""Faults of our own clients, which need no process of the mesh."""


class FaultKinds(click.ParamType[tuple[FaultKind, ...]]):
    """Comma-separated."""

    name = "KIND,KIND,..."

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[FaultKind, ...]:
        try:
            return tuple(dict.fromkeys(FaultKind(part) for part in value.split(",")))
        except ValueError as error:
            self.fail(f"{error}; there are {', '.join(FaultKind)}", param, ctx)


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Of faults, at least one of each kind. The undisturbed run before comes on top.",
)
@click.option(
    "--faults",
    type=FaultKinds(),
    help=f"Of {', '.join(FaultKind)}. Default: {_DEFAULT_FAULTS}; with --url slow-reader, for its "
    "processes are out of reach.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, 512),
    default=16,
    show_default=True,
    help="Clients, each with one request after another.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Instead: requests a second, however many are open.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of requests and faults.")
@click.option(
    "--asks",
    type=click.IntRange(1, 10_000),
    default=48,
    show_default=True,
    help="Different requests.",
)
@click.option(
    "--pause",
    type=click.FloatRange(min=0),
    default=3.0,
    show_default=True,
    help="Longest time between two faults, in seconds.",
)
@click.option("--overlap", is_flag=True, help="Strike again before the last fault is mended.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the scorecard here.",
)
@mesh_options
def torture(
    *,
    url: str | None,
    state_dir: Path,
    minutes: float,
    json_file: Path | None,
    faults: tuple[FaultKind, ...] | None,
    streams: int,
    rate: float | None,
    seed: int,
    asks: int,
    pause: float,
    overlap: bool,
) -> int:
    """Kill and freeze processes of the mesh in --state-dir under load, and judge its answers.

    Exit 1 if anything was lost, repeated, altered or failed. All that the clients saw is kept
    in torture.jsonl in the state directory; of a mesh at --url, in the current one.
    """
    home, clock = StateDir(state_dir), SystemClock()
    door = mesh_url(url, state_dir)
    is_elsewhere = url is not None and not is_local(url, home)
    chosen = _chosen(faults, is_elsewhere=is_elsewhere)
    plan = RunOptions(door, chosen, 60 * minutes, streams, seed, rate, pause, asks, overlap)
    history = (Path.cwd() if is_elsewhere else home.folder) / "torture.jsonl"
    with EventLog(history, clock) as ledger:

        def tell(fact: str) -> None:
            click.echo(f"{ledger.now_s:7.1f} s  {fact}", err=True)

        asyncio.run(Run(plan, home, ledger, clock, tell).run())
    card = scorecard(judge(read(history)))
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(card), indent=1) + "\n")
    _print(card, history)
    return 0 if card.passed else 1


def _chosen(faults: tuple[FaultKind, ...] | None, *, is_elsewhere: bool) -> tuple[FaultKind, ...]:
    if not is_elsewhere:
        return faults or tuple(FaultKind(each) for each in _DEFAULT_FAULTS.split(","))
    if impossible := [each for each in faults or () if each not in _WITHOUT_PROCESSES]:
        raise InvalidOption(
            f"--faults {','.join(impossible)}: processes of a mesh at --url are out of reach; "
            f"there is {', '.join(_WITHOUT_PROCESSES)}; or leave --url out for the mesh of "
            "--state-dir"
        )
    return faults or _WITHOUT_PROCESSES


def _print(card: Scorecard, history: Path) -> None:
    console = terminal.console()
    table = terminal.table(
        "fault", "count", "streams open", "streams went on after p50 / max", "well again p50 / max"
    )
    for each in card.faults:
        mended = _shown(each.mended) + (f", {each.never_mended} never" if each.never_mended else "")
        resumed = f"{_ms(each.resumed.p50_ms)} / {_ms(each.longest_resumed_ms)}"
        table.add_row(each.kind, str(each.count), str(each.streams_open), resumed, mended)
    console.print(table)
    console.print(
        f"{card.model} ({card.engine}), seed {card.seed}: {card.requests} requests in "
        f"{card.seconds:g} s, {card.completed} completed with {card.tokens} tokens, "
        f"{card.left_by_client} left by their clients, {card.refused} asked to come back"
    )
    console.print(f"errors: {card.errors or 'none'}", markup=False)
    console.print(
        f"first piece p50 / p99 / max: {_ms(card.first_piece.p50_ms)} / "
        f"{_ms(card.first_piece.p99_ms)} / {_ms(card.longest_first_piece_ms)}"
    )
    console.print(
        f"stalls p50 / p99 / max: {_ms(card.stall.p50_ms)} / {_ms(card.stall.p99_ms)} / "
        f"{_ms(card.longest_stall_ms)}"
    )
    console.print(
        f"lost {card.lost}, repeated {card.repeated}, altered "
        f"{card.altered if card.exact else 'not judged'}, failed {card.failed}, "
        f"came back after their gateway {card.returned}, still held "
        f"{'unknown' if card.held is None else card.held}"
    )
    for finding in card.findings:
        console.print(finding, markup=False)
    console.print("[green]passed[/]" if card.passed else f"[red]broken[/]; see {history}")


def _shown(found: Spread) -> str:
    return f"{_ms(found.p50_ms)} / {_ms(found.p99_ms)}"


def _ms(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms / 1000:.2f} s"
