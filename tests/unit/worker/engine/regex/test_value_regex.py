"""Expressions of JSON Schema as sets of values: the same that Python finds, or narrower."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_worker.engine.regex.automaton import (
    Automaton,
    automaton,
    complement_of,
    matches,
    regex_of,
)
from headrace_worker.engine.regex.value_regex import UnsupportedPattern, search

PATTERNS = [
    '^"x"$',
    r"^C:\\[a-z]{3}$",
    "^a\tb$",
    "abc",
    "(^a|b)c",
    "^a$|^b$",
    "a(b|c$)",
    r"^(?!\.)(?!.*\.\.)[a-z.]*@[a-z]+$",
    "^(?!^a*$)[ab]+$",
    "b(?=c)",
    "^[^a]$",
    "^(?:[a-z]+|b)?$",
    "[a-z]{2,3}$",
    ".",
    "^$",
    "",
    "^(a*)*$",
]
TEXTS = st.text(st.sampled_from('abcx".@\\C:\t\n'), max_size=6)


def accepted(form: Automaton, text: str) -> bool:
    state: int | None = 0
    for character in text:
        assert state is not None
        ways = form.transitions[state]
        code = ord(character)
        state = next((to for ranges, to in ways if any(a <= code <= b for a, b in ranges)), None)
        if state is None:
            return False
    return state in form.accepting


@pytest.mark.parametrize("pattern", PATTERNS)
def test_all_forms_of_an_expression_match_what_python_finds(pattern: str) -> None:
    regex = search(pattern)
    form = automaton(regex)
    again = regex_of(form)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(TEXTS)
    def agree(text: str) -> None:
        # "$" is the very end, as ECMA-262 has it.
        found = re.search(pattern.replace("$", r"\Z"), text) is not None
        assert matches(regex, text) == found
        assert accepted(form, text) == found
        assert matches(again, text) == found

    agree()


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^\s$", "\x1c"),
        (r"^\s$", "\ufeff"),
        (r"^\w$", "é"),
        (r"^\d$", "٣"),
        ("^.$", "\u2028"),
        ("a$", "a\n"),
    ],
)
def test_what_only_some_take_for_a_match_neither_comes_nor_is_forbidden_to_match(
    pattern: str, text: str
) -> None:
    assert not matches(search(pattern), text)
    assert matches(search(pattern, permissive=True), text)


def test_groups_are_named_as_in_ecma_262() -> None:
    assert matches(search("^(?<year>[0-9]{2})$"), "26")


@pytest.mark.parametrize(
    "pattern", ["(", r"a\b", r"(a)\1", "(?<=a)b", "(?i)a", r"\p{L}", "a^b", "(?>a)"]
)
def test_what_has_no_meaning_here_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern):
        search(pattern)


def test_names_that_are_taken_are_left_out() -> None:
    free = complement_of(("a", "ab", ""))
    texts = ["", "a", "ab", "b", "abc", "ac"]
    assert [accepted(free, text) for text in texts] == [False, False, False, True, True, True]
