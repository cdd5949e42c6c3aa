"""What a worker is configured to serve, and under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.settings import InvalidSettings, read
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.serving.models import DEFAULT_MODEL, folder_or_hub_id

NAMES = (
    *("Qwen/Qwen3-0.6B", "gpt-3.5-turbo", "Qwen3", "llama3:8b", "模型", "a b", 256 * "x"),
    # What command lines and their readers might take for something else.
    *("none", "null", "true", "123", "-x", "--x", "a=b", "$HOME"),
    *("[1]", '["a"]', '{"a": 1}', '"q"'),
)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_reaches_a_worker_unchanged(name: str) -> None:
    given = read(WorkerSettings, [f"--model-name={name}", f"--model-aliases={name},b"])
    assert (given.model_name, given.model_aliases) == (name, f"{name},b")


@pytest.mark.parametrize("name", ["", " a", "a\tb", "a\u202eb", 257 * "x"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidSettings, match=r"model_name: .*no model can have this name"):
        read(WorkerSettings, [f"--model-name={name}"])


def test_what_is_no_alias_is_refused() -> None:
    with pytest.raises(InvalidSettings, match=r"model_aliases: .*cannot be printed, U\+0009"):
        read(WorkerSettings, ["--model-aliases=good,b\td"])


def test_the_model_that_ships_is_meant_by_its_name_unless_a_folder_has_it(tmp_path: Path) -> None:
    shipped = str(DEFAULT_MODEL)
    assert folder_or_hub_id("default", here=tmp_path) == shipped
    assert folder_or_hub_id("valley", here=tmp_path) == shipped
    assert folder_or_hub_id("./valley", here=tmp_path) == "./valley"
    assert folder_or_hub_id("org/valley", here=tmp_path) == "org/valley"
    (tmp_path / "valley").mkdir()
    assert folder_or_hub_id("valley", here=tmp_path) == "valley"


@pytest.mark.parametrize("name", ["a b", "a..b", "*", "a.>", ".a", 129 * "a"])
def test_a_process_whose_name_no_subject_could_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidSettings, match="name: "):
        read(WorkerSettings, [f"--name={name}"])
    assert read(WorkerSettings, ["--name=gpu-box_1.rack-2.example"]).name
