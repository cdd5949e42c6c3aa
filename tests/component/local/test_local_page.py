"""The examples of docs/local.md run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "local.md"


@pytest.mark.timeout(180)
def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out
    assert "get_weather {'city': 'Oslo'}" in shown
    assert "parameters.top_p top_p is 3; it must be in (0, 1]" in shown
    assert re.search(r"^valley [0-9]+$", shown, re.MULTILINE)
