"""A folder of `llm` with our models in it, and no plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

URL, KEY = os.environ["HEADRACE_BASE_URL"] + "/v1", os.environ["HEADRACE_API_KEY"]


class Run(Protocol):
    def __call__(self, *arguments: str, stdin: str = "") -> str: ...


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the command; its output."""
    folder = tmp_path_factory.mktemp("llm")
    model = {
        "model_id": "valley",
        "model_name": os.environ["HEADRACE_MODEL"],
        "api_base": URL,
        "api_key_name": "headrace",
        "supports_tools": True,
        "supports_schema": True,
    }
    (folder / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML, too
    command = str(Path(sys.executable).with_name("llm"))
    environment = os.environ | {"LLM_USER_PATH": str(folder)}

    def run(*arguments: str, stdin: str = "") -> str:
        ran = subprocess.run(
            [command, *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    run("keys", "set", "headrace", "--value", KEY)
    return run
