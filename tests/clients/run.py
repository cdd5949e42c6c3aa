"""Runs the tests of other people's clients: PYTHONPATH=tests python -m clients.run [CLIENT …]"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from clients.environments import Client, NotPrepared, clients
from helpers.environment import KINDS, required_kinds

LIGHT = ("anthropic", "openai", "openai_agents", "vllm_bench")
"""Those that `make test` runs, too: they are installed and done in seconds."""
AT_ONCE = 2
TESTS_S = 900
"""For one client."""


@dataclass(frozen=True)
class Outcome:
    """What became of one client's tests."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    text: str = ""
    """What there is to read of failures and skips."""

    @property
    def is_good(self) -> bool:
        return not self.failed and bool(self.passed or self.skipped)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if all tests that ran passed, else 1."""
    parser = argparse.ArgumentParser(prog="clients.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CLIENT", help="which; all by default")
    parser.add_argument("--light", action="store_true", help="only those of `make test`")
    parser.add_argument("--lock", action="store_true", help="renew the lock files, run nothing")
    options = parser.parse_args(arguments)
    names = options.names or (LIGHT if options.light else [c.name for c in clients()])
    chosen = [client for client in clients() if client.name in names]
    if missing := set(names) - {client.name for client in chosen}:
        parser.error(f"tests/clients has no {', '.join(sorted(missing))}")
    if options.lock:
        for client in chosen:
            client.lock()
        return 0
    outcomes = run_all(chosen)
    print_table(outcomes)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def run_all(chosen: Sequence[Client]) -> list[Outcome]:
    """Prepare all environments while the mesh starts, then run the tests of each."""
    # Imports torch, which those that only lock do not wait for.
    from clients.served import served

    with (
        tempfile.TemporaryDirectory(prefix="headrace-clients-") as folder,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        prepared = [pool.submit(prepare, client) for client in chosen]
        with served(Path(folder)) as environment:
            running = [
                pool.submit(run_one, client, ready, environment)
                for client, ready in zip(chosen, prepared, strict=True)
            ]
            return [each.result() for each in running]


def prepare(client: Client) -> Outcome | None:
    """Make the environment; return an outcome where that is the end of it."""
    if client.uses_node and shutil.which("node") is None:
        text = f"node: this machine lacks {KINDS['node']}"
        if "node" in required_kinds():
            return Outcome(client.name, failed=1, text=f"{text}, and HEADRACE_REQUIRE requires it")
        return Outcome(client.name, skipped=1, text=text)
    try:
        client.prepare()
    except NotPrepared as error:
        return Outcome(client.name, failed=1, text=str(error))
    return None


def run_one(
    client: Client, prepared: Future[Outcome | None], environment: dict[str, str]
) -> Outcome:
    """Run one client's tests in its environment."""
    if (outcome := prepared.result()) is not None:
        return outcome
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        try:
            ran = subprocess.run(
                client.command(report),
                cwd=client.working_directory(),
                env=environment | {"TMPDIR": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=TESTS_S,
            )
        except subprocess.TimeoutExpired as error:
            text = (error.stdout or b"").decode(errors="replace")
            return Outcome(client.name, failed=1, text=f"{text}\nnot done in {TESTS_S} s")
        seconds = time.monotonic() - began_s
        return counted(client.name, report, seconds, ran)


def counted(
    name: str, report: Path, seconds: float, ran: subprocess.CompletedProcess[str]
) -> Outcome:
    """Count the cases of a JUnit file; a run that left none, or failed without a case, failed."""
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    kinds = [{child.tag for child in case} for case in cases]
    failed = sum(bool(kind & {"failure", "error"}) for kind in kinds)
    skipped = sum("skipped" in kind for kind in kinds)
    passed = len(cases) - failed - skipped
    if (ran.returncode != 0 and not failed) or not cases:
        failed += 1
    text = ran.stdout if failed or skipped else ""
    return Outcome(name, passed, failed, skipped, seconds, text)


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print what there is to read, then a line for each client."""
    for outcome in outcomes:
        if outcome.text:
            print(f"== {outcome.name}\n{outcome.text.strip()}\n")
    print(f"{'client':<20} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for o in outcomes:
        print(f"{o.name:<20} {o.passed:>7} {o.failed:>7} {o.skipped:>8} {o.seconds:>8.1f}")


if __name__ == "__main__":
    sys.exit(main())
