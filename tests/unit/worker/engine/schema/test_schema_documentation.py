"""The documentation's tables of schema keywords are those of the code."""

from __future__ import annotations

from pathlib import Path

from headrace_worker.engine.schema.formats import FORMATS
from headrace_worker.engine.schema.keywords import KEYWORDS

PAGE = Path("docs/structured_output.md")


def table() -> str:
    rows = [f"| `{name}` | {word.effect} | {word.note} |" for name, word in KEYWORDS.items()]
    return "\n".join(["| keyword | effect | note |", "|---|---|---|", *rows])


def test_the_documentation_has_every_keyword_and_what_becomes_of_it() -> None:
    assert f"\n\n{table()}\n\n" in PAGE.read_text(), f"write this table:\n{table()}"


def test_the_documentation_names_every_format_that_is_enforced() -> None:
    names = ", ".join(f"`{name}`" for name in FORMATS)
    assert f"\n\n{names}.\n\n" in PAGE.read_text(), f"write these names: {names}"
