"""Rules of single limits, by example."""

from __future__ import annotations

import pytest

from headrace.internal.v1.access_pb2 import Limits, PriceRow
from headrace.internal.v1.quota_pb2 import LimitKind, LimitScope, QuotaRefusal
from helpers.quota_journal import START_MS, Journal, replay, terms

PRICES = (
    PriceRow(valid_from_ms=0, input_nanos=10, cached_input_nanos=1, output_nanos=30),
    PriceRow(
        valid_from_ms=START_MS + 60_000, input_nanos=20, cached_input_nanos=2, output_nanos=60
    ),
)


def refused(refusal: QuotaRefusal | None) -> QuotaRefusal:
    assert refusal is not None, "it was granted"
    return refusal


def test_a_minute_slides_and_the_retry_is_when_enough_has_left_it() -> None:
    journal = Journal(terms(Limits(tokens_per_minute=1000)))
    assert journal.reserve("r1", 600) is None
    journal.confirm("r1")
    journal.wait(5)
    refusal = refused(journal.reserve("r2", 600))
    assert (refusal.used, refusal.requested, refusal.limit) == (600, 600, 1000)
    assert (journal.wait_ms(refusal), refusal.never) == (56_000, False)
    journal.wait(55.999)
    assert journal.reserve("r2", 600) is not None
    journal.wait(0.001)
    assert journal.reserve("r2", 600) is None


def test_a_request_that_alone_exceeds_a_limit_is_told_never() -> None:
    journal = Journal(terms(Limits(tokens_per_minute=1000)))
    refusal = refused(journal.reserve("r", 1001))
    assert refusal.never
    assert refusal.retry_after_ms == 0


def test_all_limits_decide_at_once_and_a_refusal_charges_none() -> None:
    limits = Limits(requests_per_minute=10, tokens_per_minute=100)
    journal = Journal(terms(limits, key_limits=Limits(tokens_per_day=50)))
    refusal = refused(journal.reserve("r", 60))
    assert (refusal.kind, refusal.scope) == (
        LimitKind.LIMIT_KIND_TOKENS_PER_DAY,
        LimitScope.LIMIT_SCOPE_KEY,
    )
    assert journal.used() == [0, 0, 0]


def test_the_limit_that_lasts_longest_is_named() -> None:
    journal = Journal(terms(Limits(requests_per_minute=1, requests_per_day=1)))
    assert journal.reserve("r1", 1) is None
    refusal = refused(journal.reserve("r2", 1))
    assert refusal.kind == LimitKind.LIMIT_KIND_REQUESTS_PER_DAY
    assert journal.wait_ms(refusal) == 16 * 3600_000, "it is 8 o'clock in UTC"


def test_limits_of_a_model_count_that_model_alone() -> None:
    of_models = {"m": Limits(requests_per_minute=1)}
    journal = Journal(terms(Limits(requests_per_minute=3), models=of_models, key_models=of_models))
    assert journal.reserve("other", 1, model="other") is None
    assert journal.reserve("r1", 1) is None
    assert journal.used() == [2, 1, 1]
    refusal = refused(journal.reserve("r2", 1))
    assert (refusal.model, refusal.limit) == ("m", 1)


def test_a_repeated_reservation_is_charged_once_and_a_larger_one_the_difference() -> None:
    journal = Journal(terms(Limits(requests_per_minute=10, tokens_per_minute=1000)))
    for _ in range(3):
        assert journal.reserve("r", 100, output=50) is None
    assert journal.used() == [1, 150]
    assert journal.reserve("r", 100, output=90) is None
    assert journal.reserve("r", 100, output=50) is None
    assert journal.used() == [1, 190]


def test_what_was_not_used_is_returned_in_the_second_in_which_it_was_charged() -> None:
    journal = Journal(terms(Limits(requests_per_minute=10, tokens_per_minute=1000)))
    journal.reserve("r", 100, output=100)
    journal.confirm("r")
    journal.wait(30)
    journal.reserve("r", 100, output=300)
    journal.settle("r", 100, output=150)
    assert journal.used() == [1, 250]
    journal.wait(31)
    assert journal.used() == [0, 50], "150 of the newer 200 came back, of the older none"
    assert not journal.settle("r", 100, output=150), "a usage record that comes twice counts once"


def test_the_parts_of_a_call_are_one_request_of_a_minute_and_a_day() -> None:
    limits = Limits(
        requests_per_minute=1, requests_per_day=1, tokens_per_minute=900, concurrent_requests=9
    )
    journal = Journal(terms(limits))
    assert journal.reserve("r", 100) is None
    for part in ("r-1", "r-2"):
        assert journal.reserve(part, 100, is_part=True) is None
        assert journal.reserve(part, 150, is_part=True) is None
    assert journal.used() == [1, 400, 1, 3]
    assert refused(journal.reserve("another", 1)).limit == 1
    journal.confirm("r-1")
    assert journal.states(replay(journal.snapshot())) == journal.states()
    journal.settle("r-1", 120)
    journal.release("r-2")
    assert journal.used() == [1, 220, 1, 1]
    journal.record.check_integrity()


def test_a_released_reservation_leaves_nothing() -> None:
    limits = Limits(requests_per_minute=9, tokens_per_day=1000, concurrent_requests=9)
    journal = Journal(terms(limits))
    journal.reserve("r", 100)
    assert journal.used() == [1, 100, 1]
    journal.release("r")
    assert journal.used() == [0, 0, 0]
    journal.release("r")
    journal.confirm("r")
    assert journal.used() == [0, 0, 0]


def test_a_reservation_that_is_not_confirmed_ends_after_30_s() -> None:
    journal = Journal(terms(Limits(tokens_per_day=1000, concurrent_requests=9)))
    journal.reserve("lost", 100)
    journal.reserve("stored", 10)
    journal.confirm("stored")
    journal.wait(30)
    assert journal.used() == [10, 1]


def test_a_confirmed_one_ends_a_minute_after_its_deadline_and_is_charged_if_it_is_used_later() -> (
    None
):
    journal = Journal(terms(Limits(tokens_per_day=1000, concurrent_requests=9)))
    journal.reserve("r", 100, lasts_s=100)
    journal.confirm("r")
    journal.wait(159)
    assert journal.used() == [100, 1]
    journal.wait(1)
    assert journal.used() == [0, 0]
    journal.settle("r", 40)
    assert journal.used() == [40, 0]


def test_a_later_deadline_of_an_extension_counts() -> None:
    journal = Journal(terms(Limits(tokens_per_day=1000)))
    journal.reserve("r", 100, lasts_s=100)
    journal.confirm("r")
    journal.reserve("r", 101, lasts_s=1000)
    journal.wait(200)
    assert journal.used() == [101]


def test_a_new_keeper_gives_gateways_time_to_confirm() -> None:
    journal = Journal(terms(Limits(tokens_per_day=1000)))
    journal.append(epoch=1)
    journal.reserve("r", 100)
    journal.now_ms += 40_000
    journal.append(epoch=2)
    journal.confirm("r")
    journal.wait(60)
    assert journal.used() == [100]


def test_requests_under_way_end_with_their_usage() -> None:
    journal = Journal(terms(Limits(concurrent_requests=2)))
    assert journal.reserve("r1", 1) is None
    assert journal.reserve("r2", 1) is None
    assert journal.wait_ms(refused(journal.reserve("r3", 1))) == 1000
    journal.settle("r1", 1)
    assert journal.reserve("r3", 1) is None


def test_rows_of_batches_count_by_the_day_and_not_by_the_minute() -> None:
    limits = Limits(
        requests_per_minute=1,
        tokens_per_minute=10,
        requests_per_day=9,
        tokens_per_day=900,
        concurrent_requests=1,
        batch_tokens_per_day=500,
    )
    journal = Journal(terms(limits))
    for i in range(5):
        assert journal.reserve(f"row-{i}", 100, batch=True) is None
    assert journal.used() == [0, 0, 5, 0, 0, 500]
    assert refused(journal.reserve("row-5", 1, batch=True)).kind == (
        LimitKind.LIMIT_KIND_BATCH_TOKENS_PER_DAY
    )
    assert journal.reserve("r", 10) is None
    assert journal.used() == [1, 10, 6, 10, 1, 500]


def test_a_run_of_a_batchs_row_that_failed_counts_without_its_tokens() -> None:
    limits = Limits(batch_tokens_per_day=900, budget_nanos_per_month=10_000)
    journal = Journal(terms(limits, prices=PRICES))
    assert journal.reserve("row", 100, output=50, batch=True) is None
    journal.settle("row", 100, output=20, batch_id="batch_1", code=14)
    assert journal.used() == [0, 0]
    assert journal.reserve("row-again", 100, output=50, batch=True) is None
    journal.settle("row-again", 100, output=50, batch_id="batch_1")
    assert journal.used() == [150, 100 * 10 + 50 * 30]


def test_a_budget_reserves_the_most_that_a_request_can_cost_and_keeps_what_it_did() -> None:
    journal = Journal(terms(Limits(budget_nanos_per_month=10_000), prices=PRICES))
    assert journal.reserve("r", 100, output=200) is None
    assert journal.used() == [100 * 10 + 200 * 30]
    refusal = refused(journal.reserve("r2", 100, output=200))
    assert (refusal.kind, refusal.never) == (LimitKind.LIMIT_KIND_BUDGET_PER_MONTH, False)
    assert journal.wait_ms(refusal) == (16 * 24 + 16) * 3600_000
    journal.settle("r", 100, cached=90, output=10)
    assert journal.used() == [10 * 10 + 90 * 1 + 10 * 30]


def test_the_dearest_requests_are_counted_and_stay_within_what_a_message_holds() -> None:
    dearest = PriceRow(input_nanos=10**12, cached_input_nanos=10**12, output_nanos=10**12)
    limits = Limits(tokens_per_day=2**63, budget_nanos_per_month=2**63 - 1)
    journal = Journal(terms(limits, prices=(dearest,)))
    for number in range(92):
        assert journal.reserve(f"r{number}", 2**40, output=2**40) is None
    refusal = refused(journal.reserve("r", 2**40))
    assert refusal.kind == LimitKind.LIMIT_KIND_BUDGET_PER_MONTH
    for number in range(200):
        journal.settle(f"r{number}", 2**64 - 1, cached=2**64 - 1, output=2**64 - 1)
    assert journal.used() == [200 * 2**41, 2**64 - 1]
    journal.snapshot()
    assert journal.states(journal.replayed()) == journal.states()


def test_the_price_is_that_of_the_time() -> None:
    journal = Journal(terms(Limits(budget_nanos_per_month=100_000), prices=PRICES))
    journal.reserve("r", 100)
    journal.wait(60)
    journal.reserve("r", 150)
    assert journal.used() == [150 * 20]
    journal.settle("r", 150)
    assert journal.used() == [150 * 20]


def test_more_than_was_reserved_is_charged_when_it_is_known() -> None:
    journal = Journal(terms(Limits(requests_per_minute=5, tokens_per_minute=1000)))
    journal.reserve("r", 100)
    journal.confirm("r")
    journal.wait(50)
    journal.settle("r", 130)
    assert journal.used() == [1, 130]
    journal.wait(20)
    assert journal.used() == [0, 30]


def test_what_was_never_reserved_is_charged_once() -> None:
    journal = Journal(terms(Limits(requests_per_day=5, tokens_per_day=1000)))
    assert journal.settle("", 70)
    assert not journal.settle("", 70)
    assert journal.used() == [1, 70]


def test_a_request_whose_sequence_was_another_ones_is_charged() -> None:
    journal = Journal(terms(Limits(requests_per_day=5, tokens_per_day=1000)))
    journal.settle("", 70, request_id="a")
    assert journal.settle("", 30, request_id="b")
    assert not journal.settle("", 30, request_id="b")
    assert journal.used() == [2, 100]


def test_a_limit_that_is_set_later_counts_what_is_used_already() -> None:
    journal = Journal(terms())
    journal.settle("", 70)
    journal.terms = terms(Limits(tokens_per_day=100))
    assert journal.used() == [70]
    assert journal.reserve("r", 31) is not None


def test_a_limit_that_is_lowered_below_what_is_used_leaves_nothing() -> None:
    journal = Journal(terms(Limits(tokens_per_day=1000)))
    journal.reserve("r", 800)
    journal.terms = terms(Limits(tokens_per_day=500))
    (state,) = journal.states()
    assert (state.used, state.remaining, state.limit) == (800, 0, 500)
    assert state.reset_ms == START_MS + 16 * 3600_000
    assert journal.reserve("r", 800) is None, "what is granted stays granted"
    assert journal.reserve("r", 801) is not None


def test_states_say_when_all_of_a_limit_is_available_again() -> None:
    limits = Limits(requests_per_minute=5, tokens_per_minute=1000, budget_nanos_per_month=10**6)
    journal = Journal(terms(limits, prices=PRICES))
    assert [state.reset_ms for state in journal.states()] == [0, 0, 0]
    journal.reserve("r1", 100)
    journal.wait(10)
    journal.reserve("r2", 100)
    minute, tokens, budget = journal.states()
    assert minute.reset_ms == tokens.reset_ms == START_MS + (10 + 61) * 1000
    assert budget.reset_ms == START_MS + (16 * 24 + 16) * 3600_000


def test_a_time_zone_that_is_changed_does_not_bring_a_day_back() -> None:
    limits = Limits(tokens_per_day=100)
    journal = Journal(terms(limits, zone="Pacific/Kiritimati"))  # it is 22 o'clock there
    journal.reserve("r1", 60)
    journal.wait(2 * 3600)
    assert journal.used() == [0]
    assert journal.reserve("r2", 60) is None
    journal.terms = terms(limits, zone="UTC")  # and 10 o'clock of the day before
    assert journal.used() == [60]
    refusal = refused(journal.reserve("r3", 60))
    assert journal.wait_ms(refusal) == (14 + 24) * 3600_000


@pytest.mark.parametrize("back_s", [1, 100])
def test_time_never_goes_back(back_s: int) -> None:
    journal = Journal(terms(Limits(tokens_per_minute=1000)))
    journal.reserve("r1", 600)
    journal.now_ms -= back_s * 1000
    refusal = refused(journal.reserve("r2", 600))
    assert refusal.retry_after_ms == START_MS + 61_000
    assert journal.record.time_ms == START_MS
