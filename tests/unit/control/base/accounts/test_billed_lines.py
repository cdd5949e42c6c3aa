"""Of each request of a batch's line one run is billed, whatever runs there are, in any order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_control.base.accounts.billed_lines import line_of, mark_billed

RUNS = ("", "_1", "-0", "-1", "-12")


def row(line: int, run: str = "", *, code: int = 0, batch_id: str = "batch_7") -> dict[str, Any]:
    name = f"{batch_id}_{line}{run}"
    return {"batch_id": batch_id, "batch_line": line, "request_id": name, "code": code}


@pytest.mark.parametrize(
    ("run", "part"), [("", 0), ("_1", 0), ("-0", 0), ("-1", 1), ("-12", 12), ("_1-3", 3)]
)
def test_a_line_has_the_requests_that_its_names_say(run: str, part: int) -> None:
    assert line_of(row(5, run, batch_id="batch_a-9")) == ("batch_a-9", 5, part)


def test_what_is_of_no_batch_is_billed_however_it_ended() -> None:
    rows = [{"batch_id": "", "batch_line": 0, "request_id": "a", "code": code} for code in (0, 1)]
    mark_billed(rows, ())
    assert [(each["billed"], each["billed_part"]) for each in rows] == [(True, -1)] * 2


ROWS = st.builds(
    row,
    st.integers(1, 3),
    st.sampled_from(RUNS),
    code=st.sampled_from([0, 0, 8, 14]),
    batch_id=st.sampled_from(["", "batch_7", "batch_8"]),
)


@given(st.lists(ROWS, max_size=20), st.integers(0, 20))
def test_the_first_regular_end_is_billed_and_no_other(rows: list[dict[str, Any]], at: int) -> None:
    first, second = rows[:at], rows[at:]
    mark_billed(first, ())
    mark_billed(second, {line for each in first if (line := line_of(each)) is not None})
    regular = {line for each in rows if (line := line_of(each)) is not None}
    billed = Counter(line_of(each) for each in rows if each["batch_id"] and each["billed"])
    assert billed == Counter(dict.fromkeys(regular, 1))
    assert all(each["billed"] for each in rows if not each["batch_id"])
    for line in regular:
        assert next(each for each in rows if line_of(each) == line)["billed"]
