"""From a judgement to the figures that a user reads. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from headrace.chaos.traces import Trace, Violation


@dataclass(frozen=True, slots=True)
class FaultFigures:
    kind: str
    count: int
    streams_open: int
    """Streams that were under way when it struck, over all faults of this kind."""
    resumed: Spread
    """From the fault until the last of those streams went on, or came to its end."""
    longest_resumed_ms: float | None
    mended: Spread
    """From the fault until what was struck was well again."""
    never_mended: int


@dataclass(frozen=True, slots=True)
class Scorecard:
    """`--json`. Streams of the undisturbed run count in nothing but `asks`."""

    model: str
    engine: str
    exact: bool
    seed: int
    seconds: float
    asks: int
    requests: int
    completed: int
    left_by_client: int
    refused: int
    """With a reason to come back later; nothing had begun."""
    errors: dict[str, int]
    """By code: what requests were refused or failed with."""
    tokens: int
    """Output tokens of completed requests."""
    faults: list[FaultFigures]
    lost: int
    repeated: int
    altered: int
    failed: int
    returned: int
    """Streams that broke off with their gateway, and whose clients came back for the rest."""
    held: int | None
    """Requests that the mesh did not let go of; None, and no pass, if no scheduler could say."""
    first_piece: Spread
    """From offering a request to its first piece."""
    longest_first_piece_ms: float | None
    stall: Spread
    """Of each stream, its longest gap less its usual one."""
    longest_stall_ms: float | None
    findings: list[str]
    """The first of each kind."""

    @property
    def passed(self) -> bool:
        never_mended = sum(fault.never_mended for fault in self.faults)
        broken = self.lost + self.repeated + self.altered + self.failed + never_mended
        return broken == 0 and self.held == 0


_SHOWN = 20


def scorecard(judgement: Judgement) -> Scorecard:
    disturbed = [t for t in judgement.traces.values() if t.offered.disturbed]
    wrong = {kind: {f.stream for f in judgement.findings if f.wrong is kind} for kind in Violation}
    errors = Counter(
        t.end.code for t in disturbed if isinstance(t.end, RequestRejected | StreamFailed)
    )
    good = [t for t in disturbed if t.is_good]
    stalls_s = [stall_s for t in disturbed if (stall_s := _stall_s(t)) is not None]
    waits_s = [t.said_s[0] - t.offered.at_s for t in disturbed if t.said_s]
    ends_s = [t.end.at_s for t in disturbed if t.end is not None]
    begins_s = [t.offered.at_s for t in disturbed]
    return Scorecard(
        model=judgement.began.model,
        engine=judgement.began.engine,
        exact=judgement.began.exact,
        seed=judgement.began.seed,
        seconds=round(max(ends_s, default=0.0) - min(begins_s, default=0.0), 1),
        asks=len(judgement.traces) - len(disturbed),
        requests=len(disturbed),
        completed=len(good),
        left_by_client=sum(isinstance(t.end, ClientClosed) for t in disturbed),
        refused=sum(isinstance(t.end, RequestRejected) and not t.findings for t in disturbed),
        errors=dict(sorted(errors.items())),
        tokens=sum(t.counted.output_tokens for t in good if t.counted is not None),
        faults=_faults(judgement, disturbed),
        lost=len(wrong[Violation.LOST]),
        repeated=len(wrong[Violation.REPEATED]),
        altered=len(wrong[Violation.ALTERED]),
        failed=len(wrong[Violation.FAILED]),
        returned=sum(trace.returns > 0 for trace in disturbed),
        held=judgement.held,
        first_piece=spread(waits_s),
        longest_first_piece_ms=_longest_ms(waits_s),
        stall=spread(stalls_s),
        longest_stall_ms=_longest_ms(stalls_s),
        findings=_examples(judgement),
    )


def _stall_s(trace: Trace) -> float | None:
    gaps_s = [b - a for a, b in zip(trace.said_s, trace.said_s[1:], strict=False)]
    return max(gaps_s) - median(gaps_s) if gaps_s else None


def _longest_ms(values_s: Sequence[float]) -> float | None:
    return round(max(values_s) * 1000, 3) if values_s else None


def _faults(judgement: Judgement, disturbed: list[Trace]) -> list[FaultFigures]:
    kinds = sorted({strike.kind for strike in judgement.strikes})
    return [
        _fault(judgement, [s for s in judgement.strikes if s.kind == kind], disturbed)
        for kind in kinds
    ]


def _fault(
    judgement: Judgement, strikes: Sequence[FaultInjected], disturbed: Sequence[Trace]
) -> FaultFigures:
    resumed_s: list[float] = []
    streams_open = 0
    for strike in strikes:
        under_way = [t for t in disturbed if _is_under_way(t, strike.at_s)]
        streams_open += len(under_way)
        resumed_s += _last(t_s - strike.at_s for t in under_way for t_s in _next_s(t, strike.at_s))
    mended_s = judgement.mended_s
    back_s = [mended_s[s.fault] - s.at_s for s in strikes if s.fault in mended_s]
    return FaultFigures(
        kind=strikes[0].kind,
        count=len(strikes),
        streams_open=streams_open,
        resumed=spread(resumed_s),
        longest_resumed_ms=_longest_ms(resumed_s),
        mended=spread(back_s),
        never_mended=len(strikes) - len(back_s),
    )


def _is_under_way(trace: Trace, at_s: float) -> bool:
    """It had said something, and its end was still to come."""
    began = bool(trace.said_s) and trace.said_s[0] <= at_s
    return began and trace.end is not None and trace.end.at_s > at_s


def _next_s(trace: Trace, at_s: float) -> list[float]:
    """When it said its next piece, or ended; of streams that were left or broken, nothing."""
    later = [s for s in trace.said_s if s > at_s]
    if later:
        return later[:1]
    return [trace.end.at_s] if isinstance(trace.end, StreamFinished) else []


def _last(values_s: Iterable[float]) -> list[float]:
    found = list(values_s)
    return [max(found)] if found else []


def _examples(judgement: Judgement) -> list[str]:
    shown: list[str] = []
    for kind in Violation:
        found = [f for f in judgement.findings if f.wrong is kind]
        shown += [f"{kind}: stream {f.stream}: {f.fact}" for f in found[:_SHOWN]]
    return shown
