"""Who is measured: a server behind its door, or our engine in a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

import psutil

from headrace.bench.figures import Figures, Outcome, figures
from headrace.bench.load import Load, run

STOP_S = 20


class Contender(Protocol):
    @property
    def name(self) -> str: ...

    def turn(self, in_flight: int, requests: int) -> Figures:
        """One run.

        Raises:
            SystemExit: a request failed; its figures would flatter.
        """
        ...

    def cpu_s(self) -> float:
        """Of all its processes, since they started."""
        ...

    def peak_mib(self) -> float:
        """Resident memory of each of its processes at its most, added up.

        What they share counts once for each.
        """
        ...


class Served:
    """A server: its load comes by HTTP."""

    def __init__(
        self,
        name: str,
        load: Load,
        roots: Sequence[int],
        cpu_s: Callable[[], float] | None = None,
    ) -> None:
        """`roots`: its processes' common ancestors; `cpu_s` where they tell not all."""
        self.name, self._load, self._roots = name, load, roots
        self.cpu_s = cpu_s or (lambda: sum(map(_cpu_s, _family(self._roots))))

    def turn(self, in_flight: int, requests: int) -> Figures:
        before_s, own_before_s = self.cpu_s(), time.process_time()
        outcomes = asyncio.run(run(self._load, concurrency=in_flight, requests=requests))
        found = figures(
            outcomes,
            concurrency=in_flight,
            cpu_s={self.name: self.cpu_s() - before_s},
            client_cpu_s=time.process_time() - own_before_s,
        )
        if found.errors:
            sys.exit(f"{self.name}: {found.errors} requests failed: {found.error_examples}")
        return found

    def peak_mib(self) -> float:
        return sum(map(_peak_mib, _family(self._roots)))


class Alone:
    """Our engine with nothing around it."""

    name = "engine alone"

    def __init__(self, weights: Path, prompt_words: int, max_tokens: int, *, threads: int) -> None:
        script = str(Path(__file__).with_name("engine_alone.py"))
        arguments = (str(weights), str(prompt_words), str(max_tokens), str(threads))
        self._process = subprocess.Popen(
            ("env", f"OMP_NUM_THREADS={threads}", sys.executable, script, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect("ready\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(STOP_S)

    def turn(self, in_flight: int, requests: int) -> Figures:
        before_s = self.cpu_s()
        assert self._process.stdin is not None
        self._process.stdin.write(f"{in_flight} {requests}\n")
        self._process.stdin.flush()
        outcomes = [Outcome(**each) for each in json.loads(self._line())]
        used_s = self.cpu_s() - before_s
        return figures(outcomes, concurrency=in_flight, cpu_s={self.name: used_s}, client_cpu_s=0.0)

    def cpu_s(self) -> float:
        return sum(map(_cpu_s, _family([self._process.pid])))

    def peak_mib(self) -> float:
        return sum(map(_peak_mib, _family([self._process.pid])))

    def _expect(self, line: str) -> None:
        if self._line() != line:
            sys.exit("the engine did not start")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _family(roots: Sequence[int]) -> Iterator[psutil.Process]:
    for root in map(psutil.Process, roots):
        yield root
        yield from root.children(recursive=True)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _peak_mib(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(kib) / 1024, 1)
