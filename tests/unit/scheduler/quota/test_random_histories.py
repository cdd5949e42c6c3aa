"""Random histories of reservations: what holds after each step, and what a successor has."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.internal.v1.access_pb2 import Limits, PriceRow
from headrace.internal.v1.quota_pb2 import LimitKind, QuotaRefusal
from headrace_scheduler.quota.settled_ids import KEPT_S
from headrace_scheduler.quota.terms import Terms
from helpers.quota_journal import START_MS, Journal, replay, terms

PRICES = (
    PriceRow(valid_from_ms=0, input_nanos=7, cached_input_nanos=1, output_nanos=11),
    PriceRow(valid_from_ms=START_MS + 90_000, input_nanos=3, output_nanos=50),
)
amounts = st.integers(1, 300)
all_limits = st.builds(
    Limits,
    requests_per_minute=st.sampled_from([0, 5, 20]),
    tokens_per_minute=st.sampled_from([0, 200, 1000]),
    requests_per_day=st.sampled_from([0, 12, 1000]),
    tokens_per_day=st.sampled_from([0, 2000, 10**6]),
    concurrent_requests=st.sampled_from([0, 0, 3]),
    batch_tokens_per_day=st.sampled_from([0, 900]),
    budget_nanos_per_month=st.sampled_from([0, 20_000, 10**9]),
)


@dataclass
class Granted:
    """What a judge remembers of a reservation, apart from the record."""

    batch: bool
    input: int = 0
    output: int = 0
    request_ms: int = 0
    charges: list[list[int]] = field(default_factory=list)
    """[time, tokens], the newest last."""

    def use(self, tokens: int) -> None:
        """Only so much was used in the end: the newest charges were too much."""
        surplus = sum(charge[1] for charge in self.charges) - tokens
        for charge in reversed(self.charges):
            back = max(0, min(surplus, charge[1]))
            charge[1] -= back
            surplus -= back


class Histories(RuleBasedStateMachine):
    """Reservations of one key, and a judge who adds up the last minute by himself."""

    names = st.integers(0, 40).map("r{}".format)

    @initialize(
        of_tenant=all_limits,
        of_key=all_limits,
        of_model=all_limits,
        zone=st.sampled_from(["", "America/New_York", "Asia/Beirut"]),
    )
    def start(self, of_tenant: Limits, of_key: Limits, of_model: Limits, zone: str) -> None:
        models = {"m": of_model}
        self.terms: Terms = terms(
            of_tenant, key_limits=of_key, models=models, zone=zone, prices=PRICES
        )
        self.journal = Journal(self.terms)
        self.granted: dict[str, Granted] = {}
        self.ended: list[Granted] = []
        self.settled: dict[str, int] = {}
        """When; those that the record must still know."""

    @rule(
        name=names, tokens=amounts, output=amounts, batch=st.booleans(), lasts_s=st.integers(1, 400)
    )
    def reserve(self, name: str, tokens: int, output: int, batch: bool, lasts_s: int) -> None:
        known = self.granted.get(name)
        refusal = self.journal.reserve(name, tokens, output=output, batch=batch, lasts_s=lasts_s)
        if refusal is not None:
            self.check_retry(refusal, name, tokens, output=output, batch=batch)
            return
        if name in self.settled:
            return
        granted = self.granted.setdefault(name, known or Granted(batch, 0, 0, self.journal.now_ms))
        more = max(tokens, granted.input) + max(output, granted.output)
        more -= granted.input + granted.output
        granted.input, granted.output = max(tokens, granted.input), max(output, granted.output)
        granted.charges.append([self.journal.now_ms, more])
        self.check_minute()
        before = self.journal.used()
        entries = len(self.journal.entries)
        assert self.journal.reserve(name, tokens, output=output, batch=batch) is None
        assert (self.journal.used(), len(self.journal.entries)) == (before, entries), "charged once"

    def check_retry(
        self, refusal: QuotaRefusal, name: str, tokens: int, *, output: int, batch: bool
    ) -> None:
        """The same call is granted then, in the record of a successor."""
        if refusal.never:
            return
        assert refusal.retry_after_ms > self.journal.now_ms
        later = Journal(self.terms)
        later.record = self.journal.replayed()
        later.now_ms = self.journal.now_ms
        later.wait((refusal.retry_after_ms - later.now_ms) / 1000)
        if name in self.granted and later.record.reservation(name) is None:
            return  # what was to be extended has ended meanwhile
        again = later.reserve(name, tokens, output=output, batch=batch)
        assert again is None or again.kind == LimitKind.LIMIT_KIND_CONCURRENT_REQUESTS

    def check_minute(self) -> None:
        since_ms = self.journal.now_ms - 60_000
        alive = [each for each in (*self.granted.values(), *self.ended) if not each.batch]
        requests = sum(each.request_ms > since_ms for each in alive)
        tokens = sum(c[1] for each in alive for c in each.charges if c[0] > since_ms)
        for limit in self.terms.limits:
            if limit.kind == LimitKind.LIMIT_KIND_REQUESTS_PER_MINUTE:
                assert requests <= limit.amount
            if limit.kind == LimitKind.LIMIT_KIND_TOKENS_PER_MINUTE:
                assert tokens <= limit.amount

    @rule(name=names)
    def confirm(self, name: str) -> None:
        self.journal.confirm(name)

    @rule(name=names)
    def release(self, name: str) -> None:
        self.journal.release(name)
        self.granted.pop(name, None)

    @rule(name=names, share=st.floats(0, 1))
    def settle(self, name: str, share: float) -> None:
        if (granted := self.granted.pop(name, None)) is None:
            return
        output = int(granted.output * share)
        assert self.journal.settle(name, granted.input, output=output, cached=granted.input // 2)
        granted.use(granted.input + output)
        self.ended.append(granted)
        self.settled[name] = self.journal.now_ms
        assert not self.journal.settle(name, granted.input, output=output)

    @rule(seconds=st.sampled_from([0.0, 0.2, 1.0, 7.0, 29.0, 61.0, 500.0, 40_000.0]))
    def wait(self, seconds: float) -> None:
        self.journal.wait(seconds)
        for name in list(self.granted):
            if self.journal.record.reservation(name) is None:
                del self.granted[name]
        since_ms = self.journal.now_ms - KEPT_S * 1000
        self.settled = {name: ms for name, ms in self.settled.items() if ms >= since_ms}

    @rule(part_bytes=st.sampled_from([1, 300, 10**6]), written=st.floats(0, 1))
    def snapshot(self, part_bytes: int, written: float) -> None:
        """All of its parts replace what was before; some of them replace nothing."""
        parts = self.journal.snapshot(part_bytes=part_bytes)
        some = parts[: int(len(parts) * written)]
        if len(some) == len(parts):
            self.journal.entries = some
        else:
            self.journal.entries += some

    @rule()
    def another_keeper(self) -> None:
        self.journal.record = self.journal.replayed()
        self.journal.append(epoch=self.journal.record.epoch + 1)

    @invariant()
    def nothing_is_negative_and_accounts_agree_with_reservations(self) -> None:
        if hasattr(self, "journal"):
            self.journal.record.check_integrity()

    @invariant()
    def a_successor_has_the_same_record(self) -> None:
        if not hasattr(self, "journal"):
            return
        mine, theirs = self.journal.record, self.journal.replayed()
        assert self.journal.states() == self.journal.states(theirs)
        theirs.check_integrity()
        assert len(mine) == len(theirs)
        assert mine.epoch == theirs.epoch
        for name in self.granted:
            ours, other = mine.reservation(name), theirs.reservation(name)
            assert ours is not None
            assert other is not None
            assert ours.store() == other.store()
        assert all(theirs.was_settled(name) for name in self.settled)


Histories.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestHistories = Histories.TestCase


def test_a_snapshot_that_was_not_written_whole_replaces_nothing() -> None:
    journal = Journal(terms(Limits(tokens_per_day=10_000)))
    for i in range(9):
        journal.reserve(f"r{i}", 100)
    parts = journal.snapshot(part_bytes=1)
    assert len(parts) > 3
    journal.entries += parts[:-1]
    journal.append(epoch=1)
    assert len(replay(journal.entries)) == 9
    again = journal.snapshot(part_bytes=1)
    journal.entries += again
    assert len(replay(again)) == 9
    assert [s.used for s in journal.states(replay(journal.entries))] == [900]
