"""What counts against the limits of one scope: the last minute, the day, the month. Pure."""

from __future__ import annotations

from headrace.internal.v1.quota_pb2 import LimitKind, QuotaAccount, QuotaBucket, QuotaDate
from headrace_scheduler.quota.calendar import Date, earliest_date

# Why once, and as int: each look at a member of an enumeration of protobuf takes 3 us.
REQUESTS_PER_MINUTE = int(LimitKind.LIMIT_KIND_REQUESTS_PER_MINUTE)
TOKENS_PER_MINUTE = int(LimitKind.LIMIT_KIND_TOKENS_PER_MINUTE)
REQUESTS_PER_DAY = int(LimitKind.LIMIT_KIND_REQUESTS_PER_DAY)
TOKENS_PER_DAY = int(LimitKind.LIMIT_KIND_TOKENS_PER_DAY)
CONCURRENT_REQUESTS = int(LimitKind.LIMIT_KIND_CONCURRENT_REQUESTS)
BATCH_TOKENS_PER_DAY = int(LimitKind.LIMIT_KIND_BATCH_TOKENS_PER_DAY)
BUDGET_PER_MONTH = int(LimitKind.LIMIT_KIND_BUDGET_PER_MONTH)

Amounts = tuple[int, int, int, int, int, int, int, int]
"""By kind of limit; the first is unused."""

WINDOW_S = 61
"""Seconds that count: the open one and 60 whole ones before it."""


def as_uint64(count: int) -> int:
    """Return a count as a message has it: one that is larger was cut when a snapshot was stored, so
    what is returned later may be more than what is left."""
    return max(0, min(count, 2**64 - 1))


def amounts(
    *, requests: int, tokens: int, cost: int, batch: bool, is_part: bool = False
) -> Amounts:
    """Return what this much counts for each kind of limit.

    Parts of a call, of which another request counts, count as under way and with tokens. Rows of
    batches count by the day and the month, not by the minute, and not as under way; their tokens
    count against the limit of batches alone.
    """
    counted = 0 if is_part else requests
    if batch:
        return (0, 0, 0, counted, 0, 0, tokens, cost)
    return (0, counted, tokens, counted, tokens, requests, 0, cost)


_BY_DAY = (REQUESTS_PER_DAY, TOKENS_PER_DAY, BATCH_TOKENS_PER_DAY)


class Account:
    """The counts of one scope.

    `counts` has, by kind of limit, what is charged in the current minute, day or month; of requests
    under way, their number. `advance` makes them current.
    """

    __slots__ = ("_buckets", "_second", "counts", "date", "key")

    def __init__(self, key: tuple[int, str, str]) -> None:
        """`key`: scope, tenant or key id, model."""
        self.key = key
        self.date = Date(0, 0)
        self.counts = [0] * 8
        self._second = 0
        self._buckets: dict[int, list[int]] = {}
        """Requests and tokens, by second, the oldest first."""

    def advance(self, second: int, date: Date) -> None:
        """Let what is over go. A second or date that is past changes nothing."""
        if second > self._second:
            self._second = second
            while self._buckets and (oldest := next(iter(self._buckets))) <= second - WINDOW_S:
                requests, tokens = self._buckets.pop(oldest)
                self.counts[REQUESTS_PER_MINUTE] -= requests
                self.counts[TOKENS_PER_MINUTE] -= tokens
        if date.day > self.date.day or date.month > self.date.month:
            if date.day > self.date.day:
                for kind in _BY_DAY:
                    self.counts[kind] = 0
            if date.month > self.date.month:
                self.counts[BUDGET_PER_MONTH] = 0
            self.date = self.date.latest(date)

    def charge(self, charged: Amounts) -> None:
        """Count these in the second and on the date that it was advanced to."""
        counts = self.counts
        for kind in range(1, 8):
            counts[kind] += charged[kind]
        requests, tokens = charged[REQUESTS_PER_MINUTE], charged[TOKENS_PER_MINUTE]
        if requests or tokens:
            bucket = self._buckets.get(self._second)
            if bucket is None:
                self._buckets[self._second] = [requests, tokens]
            else:
                bucket[0] += requests
                bucket[1] += tokens

    def add(self, spent: QuotaAccount) -> None:
        """Count what was used of the day and the month that it was advanced to."""
        if spent.date.day == self.date.day:
            self.counts[REQUESTS_PER_DAY] += spent.day_requests
            self.counts[TOKENS_PER_DAY] += spent.day_tokens
            self.counts[BATCH_TOKENS_PER_DAY] += spent.day_batch_tokens
        if spent.date.month == self.date.month:
            self.counts[BUDGET_PER_MONTH] += spent.month_cost_nanos

    def refund(self, returned: Amounts, second: int, date: Date) -> None:
        """Take back what was charged in this second, on this date: what is over stays over.

        Not that a request is under way: `end_request` does that.
        """
        counts = self.counts
        if (bucket := self._buckets.get(second)) is not None:
            for place, kind in enumerate((REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE)):
                bucket[place] -= returned[kind]
                counts[kind] -= returned[kind]
        if date.day == self.date.day:
            for kind in _BY_DAY:
                counts[kind] -= returned[kind]
        if date.month == self.date.month:
            counts[BUDGET_PER_MONTH] -= returned[BUDGET_PER_MONTH]

    def begin_request(self, *, batch: bool) -> None:
        """Count a request as under way; rows of batches do not count."""
        self.counts[CONCURRENT_REQUESTS] += not batch

    def end_request(self, *, batch: bool) -> None:
        self.counts[CONCURRENT_REQUESTS] -= not batch

    def second_without(self, kind: int, excess: int) -> int:
        """Return the second in which this much of a minute's count has left the window."""
        place = kind - REQUESTS_PER_MINUTE
        for second, bucket in self._buckets.items():
            excess -= bucket[place]
            if excess <= 0:
                return second + WINDOW_S
        return self._second + WINDOW_S

    def last_second(self, kind: int) -> int:
        """Return the second in which all of a minute's count has left the window."""
        place = kind - REQUESTS_PER_MINUTE
        return WINDOW_S + next(s for s in reversed(self._buckets) if self._buckets[s][place])

    def is_over(self, now_ms: int) -> bool:
        """Return whether nothing of it counts any more, in whatever time zone."""
        past, counts = earliest_date(now_ms), self.counts
        counts_today = any(counts[kind] for kind in _BY_DAY)
        return not (
            counts[CONCURRENT_REQUESTS]
            or any(s > now_ms // 1000 - WINDOW_S for s, b in self._buckets.items() if any(b))
            or (counts_today and self.date.day > past.day)
            or (counts[BUDGET_PER_MONTH] and self.date.month >= past.month)
        )

    def store(self, now_ms: int) -> QuotaAccount:
        """Return what a snapshot holds of it: all but the requests under way."""
        scope, owner, model = self.key
        oldest = now_ms // 1000 - WINDOW_S + 1
        return QuotaAccount(
            scope=scope,  # type: ignore[arg-type]  # an int, as above
            owner=owner,
            model=model,
            date=QuotaDate(day=self.date.day, month=self.date.month),
            day_requests=self.counts[REQUESTS_PER_DAY],
            day_tokens=self.counts[TOKENS_PER_DAY],
            day_batch_tokens=self.counts[BATCH_TOKENS_PER_DAY],
            month_cost_nanos=as_uint64(self.counts[BUDGET_PER_MONTH]),
            buckets=[
                QuotaBucket(second=second, requests=requests, tokens=tokens)
                for second, (requests, tokens) in self._buckets.items()
                if second >= oldest and (requests or tokens)
            ],
        )

    @classmethod
    def load(cls, stored: QuotaAccount) -> Account:
        account = cls((int(stored.scope), stored.owner, stored.model))
        account.date = Date(stored.date.day, stored.date.month)
        account._buckets = {b.second: [b.requests, b.tokens] for b in stored.buckets}
        account._second = max(account._buckets, default=0)
        counts = account.counts
        counts[REQUESTS_PER_MINUTE] = sum(b.requests for b in stored.buckets)
        counts[TOKENS_PER_MINUTE] = sum(b.tokens for b in stored.buckets)
        counts[REQUESTS_PER_DAY] = stored.day_requests
        counts[TOKENS_PER_DAY] = stored.day_tokens
        counts[BATCH_TOKENS_PER_DAY] = stored.day_batch_tokens
        counts[BUDGET_PER_MONTH] = stored.month_cost_nanos
        return account

    def check_integrity(self) -> None:
        """Raise AssertionError unless no count is negative, and the minute is its buckets."""
        assert min(self.counts) >= 0, self.counts
        assert all(min(bucket) >= 0 for bucket in self._buckets.values()), self._buckets
        for place, kind in enumerate((REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE)):
            assert self.counts[kind] == sum(bucket[place] for bucket in self._buckets.values())
        assert list(self._buckets) == sorted(self._buckets)
        assert len(self._buckets) <= WINDOW_S
