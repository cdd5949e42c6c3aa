"""Which inputs share a forward pass."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_worker.engine.encoder.batching import BatchMode, choose_batch

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=40)


def passes(lengths: dict[int, int], batch_tokens: int, batch_mode: BatchMode) -> list[list[int]]:
    """All passes until no input waits."""
    waiting, found = dict(lengths), []
    while waiting:
        chosen = choose_batch(waiting, batch_tokens=batch_tokens, batch_mode=batch_mode)
        assert next(iter(waiting)) in chosen, "the oldest waits while others go"
        found.append(chosen)
        for each in chosen:
            del waiting[each]
    return found


@given(LENGTHS, st.integers(1, 2000))
def test_a_pass_stays_within_its_tokens_and_pads_little(drawn: list[int], tokens: int) -> None:
    lengths = dict(enumerate(drawn))
    for chosen in passes(lengths, tokens, BatchMode.PADDED):
        own = [lengths[each] for each in chosen]
        assert len(own) == 1 or len(own) * max(own) <= tokens
        assert max(own) - min(own) <= max(8, max(own) // 4)


@given(LENGTHS, st.integers(1, 2000))
def test_a_model_that_padding_changes_gets_none(drawn: list[int], tokens: int) -> None:
    lengths = dict(enumerate(drawn))
    for chosen in passes(lengths, tokens, BatchMode.SAME_LENGTH):
        assert len({lengths[each] for each in chosen}) == 1
    assert all(len(chosen) == 1 for chosen in passes(lengths, tokens, BatchMode.SINGLE))


def test_the_oldest_takes_those_nearest_to_its_length() -> None:
    lengths = {7: 20, 1: 200, 2: 21, 3: 28, 4: 18, 5: 5}
    assert set(choose_batch(lengths, batch_tokens=1000, batch_mode=BatchMode.PADDED)) == {
        7,
        2,
        3,
        4,
    } - {3}
    assert set(choose_batch(lengths, batch_tokens=42, batch_mode=BatchMode.PADDED)) == {7, 2}


def test_inputs_of_one_length_fill_a_pass() -> None:
    lengths = dict.fromkeys(range(100), 10)
    assert passes(lengths, 320, BatchMode.PADDED) == [
        [*range(first, min(100, first + 32))] for first in range(0, 100, 32)
    ]


def test_no_input_waits_and_none_is_chosen() -> None:
    assert choose_batch({}, batch_tokens=100, batch_mode=BatchMode.PADDED) == []
