"""What a oneOf requires so that a value satisfies one of its schemas alone."""

from __future__ import annotations

from typing import Any

from headrace_worker.engine.schema.reader import ROOT, read_schema
from headrace_worker.engine.schema.value_sets import Object


def branch(value: int, names: str) -> dict[str, Any]:
    return {"properties": {name: {"const": value} for name in names}, "required": ["m"]}


def test_a_name_that_is_required_already_distinguishes_before_any_other() -> None:
    """So the same schema gives the same grammar in every process."""
    schema = {"oneOf": [branch(1, "abcdefghm"), branch(2, "abcdefghm")]}
    for value_set in read_schema(schema)[ROOT].value_sets:
        assert isinstance(value_set, Object)
        assert value_set.required == {"m"}


def test_else_the_first_name_that_distinguishes_is_required() -> None:
    schema = {
        "oneOf": [{**branch(value, "dcab"), "required": []} for value in (1, 2)],
    }
    for value_set in read_schema(schema)[ROOT].value_sets:
        assert isinstance(value_set, Object)
        assert value_set.required == {"d"}
