"""Tenants of one lane share it by their weights, whichever requests how much."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Leadership, Machine
from headrace_scheduler.request.fairness import Account, Accounts
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.state.events import Dispatch, DispatchAnswered, Submitted, WeightsChanged
from headrace_scheduler.state.lanes import Lane
from helpers.counting_observer import CountingObserver
from helpers.scheduler_events import (
    EPOCH,
    MODEL,
    Bench,
    answer,
    caught_up,
    lost,
    point,
    reported,
    settled,
    submitted,
)

SLOTS = 16


def waiting(request_id: str, sequence: int, tenant: str, prompt_tokens: int = 3) -> Request:
    return submitted(request_id, sequence, tenant=tenant, prompt_tokens=prompt_tokens).request


def lane_of(*requests: Request, weights: Mapping[str, float] | None = None) -> Lane:
    lane = Lane(SchedulerSettings())
    lane.set_weights(weights or {})
    for request in requests:
        lane.put(request)
    return lane


def order(lane: Lane) -> str:
    return "".join(r.request_id for r in lane.in_order(lambda _: True))


def test_one_tenant_alone_is_served_oldest_first_whatever_the_order_of_events() -> None:
    assert order(lane_of(*(waiting("abcd"[i], i, "x") for i in (2, 0, 3, 1)))) == "abcd"


def test_of_two_tenants_the_one_that_has_had_less_goes_next() -> None:
    many = [waiting("abcd"[i], i, "x") for i in range(4)]
    few = [waiting("YZ"[i], 10 + i, "y") for i in range(2)]
    assert order(lane_of(*many, *few)) == "aYbZcd"


def test_a_tenant_with_twice_the_weight_is_served_twice_as_often() -> None:
    many = [waiting("abcdef"[i], i, "x") for i in range(6)]
    few = [waiting("XYZ"[i], 10 + i, "y") for i in range(3)]
    assert order(lane_of(*many, *few, weights={"x": 2.0})) == "aXbcYdeZf"


def test_a_weight_that_changes_while_requests_wait_counts_from_then_on() -> None:
    lane = lane_of(
        *(waiting("abcdef"[i], i, "x") for i in range(6)),
        *(waiting("UVWXYZ"[i], 10 + i, "y") for i in range(6)),
    )
    assert order(lane) == "aUbVcWdXeYfZ"
    lane.set_weights({"y": 2.0})
    assert order(lane) == "aUVbWXcYZdef"
    lane.set_weights({})
    assert order(lane) == "aUbVcWdXeYfZ"


def test_long_prompts_are_charged() -> None:
    # Each of y's costs as much as two of x's: 3 or 16 of prompt, and 4 of output by 2.
    long = [waiting("YZ"[i], 10 + i, "y", prompt_tokens=14) for i in range(2)]
    short = [waiting("abcd"[i], i, "x", prompt_tokens=3) for i in range(4)]
    assert order(lane_of(*short, *long)) == "aYbcZd"


def test_a_request_that_may_not_leave_delays_no_other_and_is_charged_nothing() -> None:
    lane = lane_of(*(waiting("abc"[i], i, "x") for i in range(3)), waiting("Y", 9, "y"))
    assert [r.request_id for r in lane.in_order(lambda r: r.request_id != "a")] == ["b", "Y", "c"]


def test_time_away_earns_nothing() -> None:
    accounts = Accounts(SchedulerSettings())
    busy, absent = accounts.find("busy"), accounts.find("absent")
    accounts.put(busy, (1, "a"))
    accounts.charge(busy, 100.0)
    accounts.put(absent, (2, "b"))
    assert absent.counter == 100.0
    accounts.charge(busy, 50.0)
    accounts.remove(absent, (2, "b"))
    accounts.remove(busy, (1, "a"))
    late = accounts.find("late")
    accounts.put(late, (3, "c"))
    assert late.counter == 150.0
    accounts.check_integrity()


def test_only_so_many_tenants_with_nothing_waiting_are_remembered() -> None:
    accounts = Accounts(SchedulerSettings(max_tenants=3))
    for i in range(100):
        account = accounts.find(f"t{i}")
        accounts.put(account, (i, "r"))
        if i:
            accounts.remove(account, (i, "r"))
    accounts.check_integrity()
    assert len(accounts) == 4


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-50, 50)), max_size=60))
def test_turns_are_in_order_whatever_is_put_removed_and_charged(
    steps: list[tuple[int, int, int]],
) -> None:
    accounts = Accounts(SchedulerSettings(max_tenants=2))
    accounts.set_weights({"t1": 3.0})
    waits: dict[str, list[tuple[int, str]]] = {}
    for place, (tenant_number, step, cost) in enumerate(steps):
        tenant = f"t{tenant_number}"
        account: Account = accounts.find(tenant)
        keys = waits.setdefault(tenant, [])
        if step == 0:
            keys.append((place, "r"))
            accounts.put(account, keys[-1])
        elif step == 1 and keys:
            accounts.remove(account, keys.pop())
        else:
            accounts.charge(account, float(cost))
        accounts.check_integrity()


def test_the_one_request_of_a_tenant_leaves_within_two_rounds_of_anothers_thousand() -> None:
    bench = Bench(SchedulerSettings(max_waiting=2000))
    bench.worker(free=4, total=4)
    bench.submit(*(f"a{i}" for i in range(1000)), tenant="a")
    bench.accept()
    bench.submit("b", tenant="b")
    for round_number in (2, 3):
        bench.worker(number=round_number, free=4, total=4, counted=(EPOCH, round_number - 1))
        started = {r.request_id for d in bench.given(Dispatch) for r in d.message.requests}
        if "b" in started:
            return
        bench.accept()
    raise AssertionError("b did not start")


def test_a_request_that_returns_is_charged_for_nothing_twice() -> None:
    bench = Bench()
    bench.worker(free=1, total=1)
    bench.submit("a", tenant="x")
    attempt = bench.only(Dispatch).message.requests[0].attempt
    found = bench.machine.find("a")
    assert found is not None
    charged = found.charged
    assert charged > 0
    bench.accept()
    bench.apply(lost("w", point("a", attempt, [1])))
    (notice,) = (c for c in bench.commands if not isinstance(c, Dispatch))
    bench.apply(answer(notice, point("a", attempt, [1])))  # type: ignore[arg-type]
    assert found.charged == 3 + 2 * 1, "so much as it made, where it stands now"
    bench.worker("v", free=1, total=1)
    assert found.charged == charged


@dataclass
class Tenant:
    """It always requests more than it gets."""

    name: str
    weight: float
    prompt_tokens: int
    most_tokens: int
    made: float = 0.0
    """Cost of what it was served."""
    submitted: int = 0


@dataclass
class Simulation:
    """A worker whose requests make a token each twentieth of a second."""

    tenants: list[Tenant]
    draw: random.Random
    now_s: float = 0.0
    sequence: int = 0
    running: dict[str, int] = field(default_factory=dict)
    """Tokens left, by request id."""
    lengths: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        settings = SchedulerSettings(
            gateway_silence_s=1e9,
            max_waiting=1 << 20,
        )
        leadership = Leadership("s", MODEL, EPOCH, 0.0, listening_since_s=-10.0)
        self.machine = Machine(leadership, settings, CountingObserver())
        weights = {t.name: t.weight for t in self.tenants}
        self.machine.apply(WeightsChanged(weights), now_s=0.0)
        self.attempts: dict[str, int] = {}
        self.counted, self.reports = 0, 0
        for event in caught_up():
            self.machine.apply(event, now_s=0.0)
        self.machine.decide(now_s=0.0)

    def run(self, seconds: float) -> None:
        for step in range(round(seconds * 20)):
            self.now_s = step / 20
            for tenant in self.tenants:
                self.submit(tenant)
            self.make_tokens()
            self.report()
            for dispatch in self.machine.decide(now_s=self.now_s):
                if isinstance(dispatch, Dispatch):
                    self.take(dispatch)

    def submit(self, tenant: Tenant) -> None:
        live = sum(r.split("-")[0] == tenant.name for r in self.lengths)
        for _ in range(2 * SLOTS - live):
            self.sequence += 1
            request_id = f"{tenant.name}-{self.sequence}"
            self.lengths[request_id] = self.draw.randint(1, tenant.most_tokens)
            event = submitted(
                request_id,
                self.sequence,
                now_s=self.now_s,
                tenant=tenant.name,
                prompt_tokens=tenant.prompt_tokens,
                max_tokens=100,
            )
            self.apply(event)

    def apply(self, event: Submitted) -> None:
        self.machine.apply(event, now_s=self.now_s)

    def make_tokens(self) -> None:
        for request_id in list(self.running):
            self.tenant_of(request_id).made += 2
            self.running[request_id] -= 1
            if self.running[request_id] == 0:
                del self.running[request_id]
                made = self.lengths.pop(request_id)
                self.machine.apply(settled(request_id, output_tokens=made), now_s=self.now_s)

    def tenant_of(self, request_id: str) -> Tenant:
        name = request_id.split("-", maxsplit=1)[0]
        return next(t for t in self.tenants if t.name == name)

    def report(self) -> None:
        self.reports += 1
        event = reported(
            "w",
            self.reports,
            received_s=self.now_s,
            free=SLOTS - len(self.running),
            total=SLOTS,
            running={r: self.attempts[r] for r in self.running},
            counted=(EPOCH, self.counted),
        )
        self.machine.apply(event, now_s=self.now_s)

    def take(self, dispatch: Dispatch) -> None:
        self.counted = dispatch.number
        for record in dispatch.message.requests:
            self.attempts[record.request_id] = record.attempt
            self.running[record.request_id] = self.lengths[record.request_id]
            self.tenant_of(record.request_id).made += len(record.prompt_ids)
        self.machine.apply(DispatchAnswered("w", dispatch.number, ()), now_s=self.now_s)


KINDS = st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.integers(1, 30), st.integers(2, 20))


@settings(max_examples=12, deadline=None)
@given(kinds=st.lists(KINDS, min_size=2, max_size=3), seed=st.integers(0, 1000))
def test_over_a_minute_tenants_get_their_weights_shares_within_a_tenth(
    kinds: list[tuple[float, int, int]], seed: int
) -> None:
    tenants = [Tenant(f"t{i}", *kind) for i, kind in enumerate(kinds)]
    Simulation(tenants, random.Random(seed)).run(60.0)
    total, weights = sum(t.made for t in tenants), sum(t.weight for t in tenants)
    for tenant in tenants:
        assert abs(tenant.made / total / (tenant.weight / weights) - 1) < 0.1, tenants
