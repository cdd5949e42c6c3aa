"""Text of a choice: whole characters, cut at the first stop string, however it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headrace_gateway.models.text import Detokenizer, StopStrings, TextStream
from helpers.tiny_tokenizers import byte_fallback, byte_level

TEXTS = st.text(
    st.one_of(
        st.sampled_from("the river STOP stop\n\t"),
        st.sampled_from("你好水車éß👩‍👧🏽😀🌊�"),
        st.characters(codec="utf-8"),
    ),
    max_size=60,
)
STOPS = st.lists(st.text(st.sampled_from("STOPstop 水😀\n"), min_size=1, max_size=4), max_size=4)
TOKENIZERS = st.sampled_from([byte_level, byte_fallback])
UNHURRIED = settings(deadline=None)
"""Other processes share the machine, so that the time of one example has no meaning."""
NOTHING: frozenset[int] = frozenset()


def stream_of(
    tokenizer: Tokenizer, stops: Sequence[str] = (), silent: frozenset[int] = NOTHING
) -> TextStream:
    found = StopStrings(stops) if stops else None
    return TextStream(tokenizer.decode, stops=found, silent=silent)


def split(ids: list[int], cuts: list[int]) -> list[list[int]]:
    edges = sorted({min(cut, len(ids)) for cut in cuts} | {0, len(ids)})
    return [ids[a:b] for a, b in pairwise(edges)]


def heard(stream: TextStream, groups: list[list[int]]) -> tuple[str, bool]:
    """All the text, and whether it ended at a stop string."""
    text = ""
    for group in groups:
        piece = stream.feed(group)
        text += piece.text
        if piece.stopped:
            return text, True
    return text + stream.flush(), False


def cut_at_first_stop(text: str, stops: Sequence[str]) -> str:
    """The definition, by the slowest means: the first end of any stop, and there the longest."""
    for end in range(1, len(text) + 1):
        ending = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(ending)]
    return text


@UNHURRIED
@given(TOKENIZERS, TEXTS, STOPS, st.lists(st.integers(0, 200), max_size=8))
def test_the_pieces_are_the_whole_text_cut_at_the_first_stop(
    kind: Callable[[], Tokenizer], text: str, stops: list[str], cuts: list[int]
) -> None:
    tokenizer = kind()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    whole = tokenizer.decode(ids)
    said, _ = heard(stream_of(tokenizer, stops), split(ids, cuts))
    assert said == cut_at_first_stop(whole, stops)


@UNHURRIED
@given(st.lists(st.integers(0, 330), max_size=80), st.lists(st.integers(0, 80), max_size=8))
def test_byte_level_tokens_in_any_order_decode_as_they_would_at_once(
    ids: list[int], cuts: list[int]
) -> None:
    tokenizer = byte_level()
    said, _ = heard(stream_of(tokenizer), split(ids, cuts))
    assert said == tokenizer.decode(ids)


@UNHURRIED
@given(TEXTS)
def test_no_piece_ends_within_a_character(text: str) -> None:
    tokenizer = byte_level()
    stream = stream_of(tokenizer)
    pieces = [
        stream.feed([token_id]).text
        for token_id in tokenizer.encode(text, add_special_tokens=False).ids
    ]
    assert text.startswith("".join(pieces))


@UNHURRIED
@given(TEXTS, STOPS, st.lists(st.integers(0, 200), max_size=8))
def test_the_same_number_of_tokens_is_used_however_they_come(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode(text, add_special_tokens=False).ids

    def used(groups: list[list[int]]) -> int:
        stream, count = stream_of(tokenizer, stops), 0
        for group in groups:
            piece = stream.feed(group)
            count += piece.used
            if piece.stopped:
                break
        return count

    assert used(split(ids, cuts)) == used([[token_id] for token_id in ids])


@UNHURRIED
@given(
    TEXTS,
    STOPS,
    st.booleans(),
    st.integers(0, 12),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_stops_that_are_kept_or_come_too_early_are_the_same_however_tokens_come(
    text: str, stops: list[str], includes: bool, unstopped: int, cuts: list[int]
) -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode(text, add_special_tokens=False).ids

    def said(groups: list[list[int]]) -> tuple[str, bool]:
        stream = TextStream(
            tokenizer.decode,
            stops=StopStrings(stops),
            silent=NOTHING,
            includes_stop=includes,
            unstopped_tokens=unstopped,
        )
        return heard(stream, groups)

    words, stopped = said(split(ids, cuts))
    assert (words, stopped) == said([[token_id] for token_id in ids])
    assert tokenizer.decode(ids).startswith(words)
    if stopped and includes:
        assert any(words.endswith(stop) for stop in stops)
    if unstopped >= len(ids):
        assert (words, stopped) == (tokenizer.decode(ids), False)


def test_a_stop_string_is_found_across_tokens_and_nothing_of_it_is_sent() -> None:
    tokenizer = byte_level()
    stream = stream_of(tokenizer, ["ST", "wheel"])
    ids = tokenizer.encode("the mill, the wheel turns").ids
    pieces = [stream.feed([token_id]) for token_id in ids[: ids.index(ids[-1])]]
    until = next(i for i, piece in enumerate(pieces) if piece.stopped)
    assert "".join(piece.text for piece in pieces[: until + 1]) == "the mill, the "
    assert tokenizer.decode(ids[: until + 1]).endswith("wheel")


def test_what_may_become_a_stop_string_is_held_back_and_no_more() -> None:
    tokenizer = byte_level()
    stream = stream_of(tokenizer, ["abcabd"])
    said = [stream.feed(tokenizer.encode(letter).ids).text for letter in "xabcabcz"]
    assert said == ["x", "", "", "", "", "", "abc", "abcz"]


def test_what_was_held_back_is_returned_at_the_end() -> None:
    tokenizer = byte_level()
    stream = stream_of(tokenizer, ["STOP"])
    assert stream.feed(tokenizer.encode("go STO").ids).text == "go "
    assert stream.flush() == "STO"


def test_an_incomplete_character_shows_as_one_replacement_at_the_end() -> None:
    tokenizer = byte_level()
    stream = stream_of(tokenizer)
    first_byte = tokenizer.encode("车").ids[0]
    assert stream.feed([first_byte]).text == ""
    assert stream.flush() == "�"


def test_silent_tokens_have_no_text_and_are_counted() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("mill").ids
    stream = stream_of(tokenizer, silent=frozenset(ids[-1:]))
    piece = stream.feed(ids)
    assert (piece.text, piece.used) == (tokenizer.decode(ids[:-1]), len(ids))


@pytest.mark.parametrize("token", ["Ģ", "<|begin|>"])
def test_tokens_that_never_become_text_are_decoded_a_few_at_a_time(token: str) -> None:
    tokenizer = byte_level()
    longest = 0

    def counted(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return tokenizer.decode(ids)

    detokenizer = Detokenizer(counted)
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None
    for _ in range(1000):
        detokenizer.feed(token_id)
    assert longest <= 16
