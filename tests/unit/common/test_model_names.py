"""Names of models, and what stands for them."""

from __future__ import annotations

import doctest
import re

import pytest

import headrace.model_names
from headrace.bus import subjects
from headrace.model_names import invalid_reason, label, lane_id, parse_names

NAMES = (
    "Qwen/Qwen3-0.6B",
    "gpt-3.5-turbo",
    "Qwen3",
    "qwen3",
    "llama3:8b",
    "模型",
    "50%",
    "a b",
    "*",
)


def test_the_examples_hold() -> None:
    assert doctest.testmod(headrace.model_names).failed == 0


@pytest.mark.parametrize("name", [*NAMES, 256 * "x", 256 * "模", "a.b", ">", "$JS", "[x]", "é"])
def test_any_printable_text_is_a_name_and_its_lane_id_and_label_are_plain(name: str) -> None:
    assert invalid_reason(name) is None
    assert re.fullmatch(r"[a-z2-7]{12}", lane_id(name))
    assert re.fullmatch(r"[a-z0-9-]{1,63}", label(name))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it is empty"),
        (257 * "x", "it has 257 characters, and 256 is the most"),
        (" a", "it begins or ends with a space"),
        ("a ", "it begins or ends with a space"),
        (".", "in a URL's path it means a folder"),
        ("..", "in a URL's path it means a folder"),
        ("a\nb", "it has a character that cannot be printed, U+000A"),
        ("a\x7fb", "it has a character that cannot be printed, U+007F"),
        ("a\u202eb", "it has a character that cannot be printed, U+202E"),
        ("\ud800", "it has a character that cannot be printed, U+D800"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(name: str, why: str) -> None:
    assert invalid_reason(name) == why


def test_names_that_differ_have_lane_ids_and_labels_that_differ() -> None:
    assert len({lane_id(name) for name in NAMES}) == len(NAMES)
    assert len({label(name) for name in NAMES}) == len(NAMES)


def test_a_name_that_no_encoding_has_is_unknown_and_no_fault_of_ours() -> None:
    assert re.fullmatch(r"[a-z2-7]{12}", lane_id("\ud800"))


@pytest.mark.parametrize("name", NAMES)
def test_a_subject_has_as_many_parts_for_any_model(name: str) -> None:
    made = [
        subjects.lane(name, "bulk"),
        *(each(name) for each in (subjects.settle, subjects.locate, subjects.lost)),
    ]
    assert all(re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+){3}", subject) for subject in made)


def test_only_names_that_earlier_versions_knew_have_a_former_lane() -> None:
    assert subjects.former_lane("valley", "bulk") == "headrace.requests.valley.bulk"
    assert subjects.former_lane("Qwen3", "bulk") is None
    # It might be another model's lane.
    assert subjects.former_lane(lane_id("valley"), "bulk") is None


def test_a_list_of_names_has_commas_between_and_each_name_once() -> None:
    assert parse_names("a, b,,a,c d") == ("a", "b", "c d")
    assert parse_names("") == ()
