"""A dead letter's request is sent again under an id of its own, with all attempts and time."""

from __future__ import annotations

import pytest

from headrace.bus.subjects import ANY_GATEWAY
from headrace.errors import FailedPrecondition
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import DeadLetter
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord
from headrace_control.operations.resend import (
    RESULT_KEPT_S,
    failed_request,
    require_same_model,
    resent,
    resent_key,
)


def failed() -> RequestRecord:
    record = RequestRecord(
        request_id="team-a/night-3",
        tenant="team-a",
        model="delta",
        weights_digest="w1",
        prompt_ids=[1, 2, 3],
        gateway_id="g-1",
        delivery_address="10.0.0.4:7000",
        progress=[ChoiceProgress(output_ids=[7, 8])],
        attempt=9,
        failures=3,
        attachable=True,
        held_since_attempt=4,
    )
    record.arrival.seconds, record.deadline.seconds, record.patience.seconds = 100, 700, 5
    return record


def test_it_goes_on_from_its_output_with_all_attempts_and_its_whole_time() -> None:
    again = resent(failed(), 17, unix_s=5000.0)
    assert again.request_id == "team-a/night-3-resent-17"
    assert (again.failures, again.attempt, again.held_since_attempt) == (0, 0, 0)
    assert list(again.progress[0].output_ids) == [7, 8]
    assert list(again.prompt_ids) == [1, 2, 3]
    assert (again.arrival.seconds, again.deadline.seconds) == (5000, 5600)
    assert not again.HasField("patience"), "an operator's request waits as long as it must"
    assert (again.gateway_id, again.delivery_address) == (ANY_GATEWAY, "")
    assert (again.detached, again.attachable, again.once) == (True, False, True)
    assert again.result_ttl.seconds == RESULT_KEPT_S


def test_a_result_is_kept_for_as_long_as_it_was_to_be() -> None:
    record = failed()
    record.result_ttl.seconds = 5 * RESULT_KEPT_S
    assert resent(record, 17, unix_s=0.0).result_ttl.seconds == 5 * RESULT_KEPT_S


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("mine", "mine-resent-17"),
        ("team-a/mine", "team-a/mine-resent-17"),
        ("mine-resent-3", "mine-resent-17"),
        ("a" * 64, "a" * 54 + "-resent-17"),
    ],
)
def test_the_new_id_follows_from_the_old_one_and_the_dead_letter(key: str, expected: str) -> None:
    assert resent_key(key, 17) == expected


def test_what_is_no_callers_request_is_not_resent() -> None:
    for message, why in (
        (b"\xff\xff", "cannot be read"),
        (b"", "cannot be read"),
        (RequestRecord(request_id="c", probe=True).SerializeToString(), "canary"),
    ):
        with pytest.raises(FailedPrecondition, match=why):
            failed_request(DeadLetter(message=message), 17)


def test_other_weights_would_not_continue_its_output() -> None:
    require_same_model(failed(), ModelCard(model="delta", weights_digest="w1"))
    with pytest.raises(FailedPrecondition, match="other weights"):
        require_same_model(failed(), ModelCard(model="delta", weights_digest="w2"))
    for gone in (None, ModelCard(model="delta", weights_digest="w1", removed=True)):
        with pytest.raises(FailedPrecondition, match="not configured"):
            require_same_model(failed(), gone)
