"""Every field that OpenAI's package describes is known here, and the page says what it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.openai_fields import TABLES, Table, page, undescribed

PAGE = Path(__file__).parents[2] / "docs" / "openai_fields.md"


def test_no_field_of_openais_descriptions_is_unknown() -> None:
    """A new version of the package may bring one: say in `fields` what it does here."""
    assert undescribed() == {}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_a_field_does_one_thing(table: Table) -> None:
    assert not table.served & table.no_effect.keys()
    assert not table.served & table.not_served.keys()
    assert not table.no_effect.keys() & table.not_served.keys()


def test_the_page_of_fields_is_that_of_the_code() -> None:
    command = "PYTHONPATH=tests python tests/helpers/openai_fields.py docs/openai_fields.md"
    assert PAGE.read_text() == page(), f"run {command}"
