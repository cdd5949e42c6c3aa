"""What is reserved for requests that have not ended. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.internal.v1.quota_pb2 import QuotaDate, QuotaPortion, QuotaReservation, Reserve
from headrace_scheduler.quota.accounts import WINDOW_S
from headrace_scheduler.quota.calendar import DAY_MS, Date

UNCONFIRMED_MS = 30_000
"""How long a reservation lasts whose request is not known to be stored."""
GRACE_MS = 60_000
"""How long past its deadline a request's usage may be known."""


class Portion:
    """What was charged at one time; the first of a reservation holds its request, too."""

    __slots__ = ("cost", "date", "second", "tokens")

    def __init__(self, second: int, date: Date, tokens: int, cost: int) -> None:
        self.second, self.date, self.tokens, self.cost = second, date, tokens, cost


class Reservation:
    """Of one request: its totals, and where they were charged.

    Bounded: portions of the last minute, one of each second, and one of each day before.
    """

    __slots__ = (
        *("reservation_id", "tenant", "owner", "key_id", "model", "batch", "is_part"),
        *("input_tokens", "output_tokens", "cost"),
        *("confirmed", "deadline_ms", "expire_ms", "portions"),
    )

    def __init__(self, reserve: Reserve, owner: str, now_ms: int) -> None:
        self.reservation_id, self.tenant = reserve.reservation_id, reserve.tenant
        self.owner = owner or reserve.tenant
        self.key_id, self.model, self.batch = reserve.key_id, reserve.model, reserve.batch
        self.is_part = reserve.is_part
        self.input_tokens = self.output_tokens = self.cost = 0
        self.confirmed = False
        self.expire_ms = now_ms + UNCONFIRMED_MS
        self.deadline_ms = reserve.deadline_ms or now_ms + DAY_MS
        self.portions: list[Portion] = []

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def confirm(self) -> None:
        """From now on it lasts until a while after its deadline."""
        self.confirmed = True
        self.expire_ms = self.deadline_ms + GRACE_MS

    def raised(self, reserve: Reserve) -> tuple[int, int]:
        """Return the totals, input and output, that this call would raise it to."""
        return (
            max(self.input_tokens, reserve.input_tokens),
            max(self.output_tokens, reserve.output_tokens),
        )

    def extend(self, reserve: Reserve, cost: int) -> tuple[int, int]:
        """Raise the totals to those of `reserve`; return by how many tokens, and how much cost."""
        tokens, cost = self.tokens, max(0, cost - self.cost)
        self.input_tokens, self.output_tokens = self.raised(reserve)
        self.cost += cost
        if reserve.deadline_ms > self.deadline_ms:
            self.deadline_ms = reserve.deadline_ms
            if self.confirmed:
                self.confirm()
        return self.tokens - tokens, cost

    def add_portion(self, portion: Portion) -> None:
        """Add what was charged; join what differs no longer."""
        portions, oldest = self.portions, portion.second - WINDOW_S
        if portions and portions[-1].second == portion.second and portions[-1].date == portion.date:
            portions[-1].tokens += portion.tokens
            portions[-1].cost += portion.cost
            return
        portions.append(portion)
        i = 1
        while i < len(portions) and portions[i].second < oldest:
            if portions[i].date == portions[i - 1].date:
                portions[i - 1].tokens += portions[i].tokens
                portions[i - 1].cost += portions[i].cost
                del portions[i]
            else:
                i += 1

    def surplus(self, tokens: int, cost: int) -> Iterator[tuple[Portion, int, int]]:
        """Yield what of the portions to return, tokens and cost: the newest were in excess."""
        for portion in reversed(self.portions):
            of_tokens, of_cost = min(tokens, portion.tokens), min(cost, portion.cost)
            if of_tokens > 0 or of_cost > 0:
                yield portion, max(0, of_tokens), max(0, of_cost)
            tokens, cost = tokens - of_tokens, cost - of_cost

    def store(self) -> QuotaReservation:
        return QuotaReservation(
            reserve=Reserve(
                reservation_id=self.reservation_id,
                tenant=self.tenant,
                key_id=self.key_id,
                model=self.model,
                input_tokens=self.input_tokens,
                output_tokens=self.output_tokens,
                batch=self.batch,
                is_part=self.is_part,
                deadline_ms=self.deadline_ms,
            ),
            cost_nanos=self.cost,
            owner=self.owner,
            confirmed=self.confirmed,
            expire_ms=self.expire_ms,
            portions=[
                QuotaPortion(
                    second=each.second,
                    date=QuotaDate(day=each.date.day, month=each.date.month),
                    tokens=each.tokens,
                    cost_nanos=each.cost,
                )
                for each in self.portions
            ],
        )

    @classmethod
    def load(cls, stored: QuotaReservation) -> Reservation:
        found = cls(stored.reserve, stored.owner, 0)
        found.input_tokens = stored.reserve.input_tokens
        found.output_tokens = stored.reserve.output_tokens
        found.cost, found.confirmed = stored.cost_nanos, stored.confirmed
        found.expire_ms = stored.expire_ms
        found.portions = [
            Portion(each.second, Date(each.date.day, each.date.month), each.tokens, each.cost_nanos)
            for each in stored.portions
        ]
        return found
