"""The examples that `headrace up` prints are to be copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.cli.mesh.welcome import examples, rank_examples

URL = "http://127.0.0.1:8080"


@pytest.mark.parametrize("chats", [True, False])
def test_without_keys_no_key_is_needed(chats: bool) -> None:
    text = examples(URL, "valley", None, chats=chats)
    assert "authorization" not in text
    assert 'api_key="none"' in text


def test_with_keys_they_read_the_key_from_its_file_and_do_not_show_it(tmp_path: Path) -> None:
    file = tmp_path / "its folder" / "cli.key"
    file.parent.mkdir()
    file.write_text("hr_secret")
    for text in (examples(URL, "valley", file, chats=True), rank_examples(URL, "valley", file)):
        assert f"-H \"authorization: Bearer $(cat '{file}')\" \\\n" in text
        assert "hr_secret" not in text


def test_without_the_file_the_key_is_that_of_the_environment(tmp_path: Path) -> None:
    text = examples(URL, "valley", tmp_path / "cli.key", chats=True)
    assert '"authorization: Bearer $HEADRACE_API_KEY"' in text
    assert 'api_key=os.environ["HEADRACE_API_KEY"]' in text
