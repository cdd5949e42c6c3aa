"""lm-eval's two models for servers, on tasks of a few rows, in batches."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

ROOT, MODEL = os.environ["HEADRACE_BASE_URL"], os.environ["HEADRACE_MODEL"]
TOKENIZER = Path(__file__).parents[3] / "services/worker/headrace_worker/default_model"
ROWS = [
    ("Once upon a", " time", " lamp"),
    ("I am the small", " model", " horse"),
    ("Ada, Edith and Ida live in", " Willowmere", " Paris"),
    ("Bram is the miller of", " Millbrook", " London"),
    ("He keeps a donkey and plays the", " trumpet", " river"),
]
"""A text, how it goes on, and how it does not."""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", os.environ["HEADRACE_API_KEY"])


def task(folder: Path, kind: str, **more: Any) -> dict[str, Any]:
    """Return a task over the rows; its data set lies in `folder`."""
    rows = folder / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"q": q, "choices": [a, b], "good": a}) + "\n" for q, a, b in ROWS)
    )
    return {
        "task": f"made_{kind}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "output_type": kind,
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "target_delimiter": "",
        **more,
    }


def evaluate(model: str, path: str, made: dict[str, Any], **more: Any) -> dict[str, Any]:
    arguments = {
        "model": MODEL,
        "base_url": f"{ROOT}/v1/{path}",
        "tokenizer": str(TOKENIZER),
        "tokenizer_backend": "huggingface",
        "num_concurrent": 2,
        "max_length": 1024,
    }
    # The thousands of tasks that come with the package are not read.
    more["task_manager"] = TaskManager(include_defaults=False)
    done = lm_eval.simple_evaluate(model, model_args=arguments, tasks=[made], **more)
    results: dict[str, Any] = done["results"][made["task"]]
    return results


@pytest.mark.timeout(400)
def test_choices_are_compared_by_their_likelihood_in_batches(tmp_path: Path) -> None:
    """Several prompts in a request, with echo and log probabilities, no token made."""
    choose = {"doc_to_choice": "{{choices}}", "doc_to_target": 0}
    metrics = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    made = task(tmp_path, "multiple_choice", **choose, metric_list=metrics)
    results = evaluate("local-completions", "completions", made, batch_size=4)
    assert results["acc,none"] >= 0.8


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("model", "path", "more"),
    [
        ("local-completions", "completions", {"batch_size": 4}),
        ("local-chat-completions", "chat/completions", {"apply_chat_template": True}),
    ],
)
def test_texts_are_made_until_a_stop(
    tmp_path: Path, model: str, path: str, more: dict[str, Any]
) -> None:
    settings = {"until": ["\n", "."], "max_gen_toks": 12, "do_sample": False}
    metrics = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    made = task(
        tmp_path,
        "generate_until",
        doc_to_target="{{good}}",
        generation_kwargs=settings,
        metric_list=metrics,
    )
    results = evaluate(model, path, made, **more)
    assert 0 <= results["exact_match,none"] <= 1
