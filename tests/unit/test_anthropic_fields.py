"""Every field that Anthropic's package describes is known here, and the page says what it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.anthropic_fields import TABLES, fields_page
from helpers.openai_fields import Table, undescribed

PAGE = Path(__file__).parents[2] / "docs" / "anthropic_fields.md"


def test_no_field_of_anthropics_descriptions_is_unknown() -> None:
    """A new version of the package may bring one: say in `unsupported_fields` what it does here."""
    assert undescribed(TABLES) == {}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_a_field_does_one_thing(table: Table) -> None:
    assert not table.served & table.no_effect.keys()
    assert not table.served & table.not_served.keys()
    assert not table.no_effect.keys() & table.not_served.keys()


def test_the_page_of_fields_is_that_of_the_code() -> None:
    command = "PYTHONPATH=tests python tests/helpers/anthropic_fields.py docs/anthropic_fields.md"
    assert PAGE.read_text() == fields_page(), f"run {command}"
