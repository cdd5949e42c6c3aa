"""The lanes of one model: which requests wait, and in which order they leave."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.fairness import Account, Accounts, moving_average
from headrace_scheduler.request.live_request import LANES, PROBES, Request
from headrace_scheduler.state.lengths import FIRST_EXPECTED
from headrace_scheduler.state.tenant_shares import QueueMark, TenantShare, ahead, sample_ranks

MAX_SAMPLED = 8
"""Requests of a tenant that are looked at to estimate what its next ones cost."""


class Lane:
    """Waiting requests of one priority: the tenant that has received least goes first, and of
    its requests the oldest.

    A request that returns after an attempt keeps its place in the stream, and so
    comes before all of its tenant's that were stored after it.

    A request's cost is charged to its tenant when it starts, at its expected
    length, and corrected when its length is known: when it ends or returns. Why
    not only then: of requests that start together, the second would not count the
    first. So a counter is off by no more than what the tenant's running requests
    may still generate, and the paper's bound between two tenants that both wait,
    max(prompt cost of a request, cost of all that runs), grows by that much. A
    request that starts again is charged for nothing twice: it did not cause the break.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        self._accounts = Accounts(settings)
        self._requests: dict[str, Request] = {}
        self._expected_output = FIRST_EXPECTED
        self._usual_cost = settings.output_token_weight * FIRST_EXPECTED
        self.credit = 0.0
        self.slots = 0
        """Slots that all waiting requests need."""

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Charge tenants by these weights from now on; those that are not named have 1."""
        self._accounts.set_weights(weights)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        """Iterate in no order."""
        return iter(self._requests.values())

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._requests

    def get(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    def put(self, request: Request) -> None:
        assert request.request_id not in self._requests
        # Why again: its account may have been dropped while it ran, and another made.
        request.account = self._accounts.find(request.tenant)
        self._correct_charge(request, request.output_tokens)
        self._requests[request.request_id] = request
        account = self._account(request)
        account.slots += request.slots
        self.slots += request.slots
        self._accounts.put(account, (request.sequence, request.request_id))

    def remove(self, request: Request) -> None:
        del self._requests[request.request_id]
        account = self._account(request)
        account.slots -= request.slots
        self.slots -= request.slots
        self._accounts.remove(account, (request.sequence, request.request_id))

    def in_order(self, may_leave: Callable[[Request], bool]) -> Iterator[Request]:
        """Iterate over the requests that may leave, in the order in which they should.

        Taking the next means that the one before has started: its tenant counts as charged.
        Nothing may be put or removed meanwhile. The cost grows with what is taken, not with
        what waits.
        """
        turns, next_turn = self._accounts.turns, 0
        begun: list[tuple[float, int, str, Iterator[Request]]] = []
        while begun or next_turn < len(turns):
            if not begun or (next_turn < len(turns) and turns[next_turn] < begun[0][:3]):
                counter, turn, tenant = turns[next_turn]
                next_turn += 1
                rest = self._of_tenant(tenant, may_leave)
            else:
                counter, turn, tenant, rest = heapq.heappop(begun)
            if (request := next(rest, None)) is not None:
                yield request
                account = self._account(request)
                counter += (self._cost_of_start(request) - request.charged) / account.weight
                heapq.heappush(begun, (counter, turn, tenant, rest))

    def _of_tenant(self, tenant: str, may_leave: Callable[[Request], bool]) -> Iterator[Request]:
        waiting = (self._requests[request_id] for _, request_id in self._accounts[tenant].waiting)
        return filter(may_leave, waiting)

    def start(self, request: Request) -> None:
        """Charge the expected cost of a request that runs from now on."""
        self._charge(request, self._cost_of_start(request))

    def end(self, request: Request, output_tokens: int) -> None:
        """Charge the real cost of a request that has ended, and learn from its length."""
        self._correct_charge(request, output_tokens)
        if request.has_run:
            account = self._account(request)
            account.expected_output = moving_average(account.expected_output, output_tokens)
            self._expected_output = moving_average(self._expected_output, output_tokens)
            self._usual_cost = moving_average(self._usual_cost, request.charged)

    def _correct_charge(self, request: Request, output_tokens: int) -> None:
        """Correct the charge to what was generated; to nothing if it never ran."""
        self._charge(request, self._cost(request, output_tokens) if request.has_run else 0.0)

    def _charge(self, request: Request, cost: float) -> None:
        self._accounts.charge(self._account(request), cost - request.charged)
        request.charged = cost

    def _cost_of_start(self, request: Request) -> float:
        lately = self._account(request).expected_output
        expected = self._expected_output if lately is None else lately
        expected = min(expected, request.max_output_tokens)
        return self._cost(request, max(expected, request.output_tokens))

    def _cost(self, request: Request, output_tokens: float) -> float:
        settings = self._accounts.settings
        prompt_cost = settings.prompt_token_weight * request.prompt_tokens
        return prompt_cost + settings.output_token_weight * output_tokens

    def _account(self, request: Request) -> Account:
        if request.account is None:
            request.account = self._accounts.find(request.tenant)
        return request.account

    # Looking

    def tenant_shares(self) -> list[TenantShare]:
        """Return the shares of all tenants that wait, or whose next request would not go first."""
        least = self._accounts.least
        relevant = (a for a in self._accounts if a.waiting or a.counter > least)
        return [self._tenant_share(account) for account in relevant]

    def newcomer_share(self, tenant: str) -> TenantShare:
        """Return the share of a tenant that has nothing waiting and received no more than others;
        its requests are expected to cost what the last ones that ended did."""
        return TenantShare(tenant, self._accounts.least, self._usual_request_cost(tenant))

    def _tenant_share(self, account: Account) -> TenantShare:
        """Its `request_cost` is the mean of its next few: a look at all would cost too much."""
        sample = account.waiting[:MAX_SAMPLED]
        requests = [self._requests[request_id] for _, request_id in sample]
        cost = sum(self._cost_of_start(r) - r.charged for r in requests)
        request_cost = cost / len(requests) / account.weight if requests else 0.0
        return TenantShare(
            account.tenant,
            account.counter,
            request_cost or self._usual_request_cost(account.tenant),
            len(account.waiting),
            account.slots,
        )

    def _usual_request_cost(self, tenant: str) -> float:
        return self._usual_cost / self._accounts.weight(tenant)

    def marks(
        self, tenant_shares: Sequence[TenantShare], own: TenantShare, size: int
    ) -> list[QueueMark]:
        """Return the positions of some of a tenant's requests, the first and last among them."""
        if not own.waiting:
            return []
        others = [s for s in tenant_shares if s is not own]
        waiting = self._accounts[own.tenant].waiting
        return [
            QueueMark(waiting[place][0], ahead(own, others, place))
            for place in sample_ranks(own.waiting, size)
        ]

    def check_integrity(self) -> None:
        self._accounts.check_integrity()
        tenants = (tenant for _, _, tenant in self._accounts.turns)
        keys = [key for tenant in tenants for key in self._accounts[tenant].waiting]
        assert sorted(keys) == sorted((r.sequence, r.request_id) for r in self)
        assert self.slots == sum(r.slots for r in self)
        assert self.slots == sum(account.slots for account in self._accounts)


class Lanes(dict[str, Lane]):
    """The lanes of a model by name, most urgent first."""

    def __init__(self, settings: SchedulerSettings) -> None:
        super().__init__((name, Lane(settings)) for name in LANES)

    @property
    def has_waiting(self) -> bool:
        """Whether any request other than a probe waits."""
        return any(lane for name, lane in self.items() if name != PROBES)

    @property
    def waiting(self) -> int:
        """Number of waiting requests in all lanes, probes included."""
        return sum(map(len, self.values()))

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """As `Lane.set_weights`, of all lanes."""
        for lane in self.values():
            lane.set_weights(weights)

    def set_credits(self, credits: tuple[float, ...]) -> None:
        for lane, credit in zip(self.values(), credits, strict=True):
            lane.credit = credit
