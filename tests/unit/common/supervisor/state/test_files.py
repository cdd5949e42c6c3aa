"""Files that other processes read."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.supervisor.state.files import last_lines, read_json_object, render, write_atomically


def test_template_values_become_quoted_scalars() -> None:
    text = render("a: $path\nb: $port", {"path": 'x "y" \\ é', "port": 80})
    assert text == 'a: "x \\"y\\" \\\\ é"\nb: 80'


def test_a_template_name_without_a_value_is_rejected() -> None:
    with pytest.raises(KeyError, match="port"):
        render("$port", {})


def test_a_file_is_replaced_atomically_and_no_draft_remains(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file.json"
    write_atomically(file, "{}")
    write_atomically(file, '{"a": 1}')
    assert read_json_object(file) == {"a": 1}
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("text", [None, "", '{"a": ', "[1]"])
def test_a_file_without_a_complete_json_object_is_read_as_none(
    tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "file.json"
    if text is not None:
        file.write_text(text)
    assert read_json_object(file) is None


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log, 2) == []
    log.write_text("\n".join(f"line {i}" for i in range(20_000)))
    assert last_lines(log, 2) == ["line 19998", "line 19999"]
