"""The figures of a chaos run, from its judgement. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from headrace.bench.figures import Spread, spread
from headrace.chaos.history import (
    ClientClosed,
    FaultInjected,
    RequestRejected,
    StreamFailed,
    StreamFinished,
)
from headrace.chaos.judge import Judgement
from headrace.chaos.requests import READ_AT_THE_END, Api
from headrace.chaos.traces import Trace, Violation


@dataclass(frozen=True, slots=True)
class FaultFigures:
    kind: str
    count: int
    streams_open: int
    """Streams that were running when a fault of this kind came, over all its faults."""
    resumed: Spread
    """From the fault until the last of those streams got its next delta, or its end."""
    longest_resumed_ms: float | None
    mended: Spread
    """From the fault until its target was ready again."""
    never_mended: int


@dataclass(frozen=True, slots=True)
class Scorecard:
    """What `--json` writes. Streams of the undisturbed run count only in `asks`."""

    model: str
    engine: str
    exact: bool
    seed: int
    seconds: float
    asks: int
    """Different requests."""
    requests: int
    background: int
    """Of `requests`, those without a reader; and rows of batches, in the next."""
    batch_rows: int
    completed: int
    left_by_client: int
    refused: int
    """Rejected for want of capacity, before anything had started."""
    errors: dict[str, int]
    """Rejections and failures by code."""
    tokens: int
    """Output tokens of completed requests."""
    faults: list[FaultFigures]
    lost: int
    repeated: int
    altered: int
    failed: int
    rows: int | None
    """Rows of usage of the run's tenants; None: they were not read."""
    misbilled: int
    """Streams whose rows are not what their clients were told, and differences that the mesh
    itself finds between records, rows and sums."""
    returned: int
    """Streams that broke off and were resumed by their clients."""
    held: int | None
    """Requests that the mesh still holds at the end; None: unknown, which does not pass."""
    first_piece: Spread
    """From sending a request to its first delta."""
    longest_first_piece_ms: float | None
    stall: Spread
    """Of each stream, its longest gap between deltas less its median gap."""
    longest_stall_ms: float | None
    findings: list[str]
    """Examples of each violation."""

    @property
    def passed(self) -> bool:
        never_mended = sum(fault.never_mended for fault in self.faults)
        broken = self.lost + self.repeated + self.altered + self.failed + never_mended
        broken += self.misbilled
        return broken == 0 and self.held == 0


_EXAMPLES = 20


def scorecard(judgement: Judgement) -> Scorecard:
    """Sum up a judgement."""
    disturbed = [t for t in judgement.traces.values() if t.sent.disturbed]
    streams = {v: {f.stream for f in judgement.findings if f.violation is v} for v in Violation}
    errors = Counter(
        t.end.code for t in disturbed if isinstance(t.end, RequestRejected | StreamFailed)
    )
    good = [t for t in disturbed if t.is_good]
    stalls_s = [stall_s for t in disturbed if (stall_s := _stall_s(t)) is not None]
    # Of a background request the first piece is its whole result.
    read = [t for t in disturbed if t.delta_times_s and t.sent.api not in READ_AT_THE_END]
    waits_s = [t.delta_times_s[0] - t.sent.at_s for t in read]
    ends_s = [t.end.at_s for t in disturbed if t.end is not None]
    starts_s = [t.sent.at_s for t in disturbed]
    return Scorecard(
        model=judgement.run.model,
        engine=judgement.run.engine,
        exact=judgement.run.exact,
        seed=judgement.run.seed,
        seconds=round(max(ends_s, default=0.0) - min(starts_s, default=0.0), 1),
        asks=len(judgement.traces) - len(disturbed),
        requests=len(disturbed),
        background=sum(t.sent.api == Api.BACKGROUND for t in disturbed),
        batch_rows=sum(t.sent.api == Api.BATCH for t in disturbed),
        completed=len(good),
        left_by_client=sum(isinstance(t.end, ClientClosed) for t in disturbed),
        refused=sum(isinstance(t.end, RequestRejected) and not t.findings for t in disturbed),
        errors=dict(sorted(errors.items())),
        tokens=sum(t.usage.output_tokens for t in good if t.usage is not None),
        faults=_faults(judgement, disturbed),
        lost=len(streams[Violation.LOST]),
        repeated=len(streams[Violation.REPEATED]),
        altered=len(streams[Violation.ALTERED]),
        failed=len(streams[Violation.FAILED]),
        rows=judgement.rows,
        misbilled=len(streams[Violation.MISBILLED]) + len(judgement.differences),
        returned=sum(t.resumes > 0 for t in disturbed),
        held=judgement.held,
        first_piece=spread(waits_s),
        longest_first_piece_ms=_longest_ms(waits_s),
        stall=spread(stalls_s),
        longest_stall_ms=_longest_ms(stalls_s),
        findings=_examples(judgement),
    )


def _stall_s(trace: Trace) -> float | None:
    gaps_s = [b - a for a, b in pairwise(trace.delta_times_s)]
    return max(gaps_s) - median(gaps_s) if gaps_s else None


def _longest_ms(values_s: Sequence[float]) -> float | None:
    return round(max(values_s) * 1000, 3) if values_s else None


def _faults(judgement: Judgement, disturbed: Sequence[Trace]) -> list[FaultFigures]:
    return [
        _figures(judgement, [f for f in judgement.faults if f.kind == kind], disturbed)
        for kind in sorted({fault.kind for fault in judgement.faults})
    ]


def _figures(
    judgement: Judgement, faults: Sequence[FaultInjected], disturbed: Sequence[Trace]
) -> FaultFigures:
    resumed_s: list[float] = []
    streams_open = 0
    for fault in faults:
        running = [t for t in disturbed if _is_running(t, fault.at_s)]
        streams_open += len(running)
        next_s = [t_s - fault.at_s for t in running for t_s in _next_s(t, fault.at_s)]
        resumed_s += [max(next_s)] if next_s else []
    recovered_s = judgement.recovered_s
    recoveries_s = [recovered_s[f.fault] - f.at_s for f in faults if f.fault in recovered_s]
    return FaultFigures(
        kind=faults[0].kind,
        count=len(faults),
        streams_open=streams_open,
        resumed=spread(resumed_s),
        longest_resumed_ms=_longest_ms(resumed_s),
        mended=spread(recoveries_s),
        never_mended=len(faults) - len(recoveries_s),
    )


def _is_running(trace: Trace, at_s: float) -> bool:
    """Whether the stream has had a delta by then, and has its end later."""
    has_delta = bool(trace.delta_times_s) and trace.delta_times_s[0] <= at_s
    return has_delta and trace.end is not None and trace.end.at_s > at_s


def _next_s(trace: Trace, at_s: float) -> list[float]:
    """When its next delta, or its good end, came; empty if neither did."""
    later = [t_s for t_s in trace.delta_times_s if t_s > at_s]
    return later[:1] or ([trace.end.at_s] if isinstance(trace.end, StreamFinished) else [])


def _examples(judgement: Judgement) -> list[str]:
    differences = [f"accounts: {each}" for each in judgement.differences[:_EXAMPLES]]
    return differences + [
        f"{violation}: stream {finding.stream}: {finding.fact}"
        for violation in Violation
        for finding in [f for f in judgement.findings if f.violation is violation][:_EXAMPLES]
    ]
