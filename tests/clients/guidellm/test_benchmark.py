"""A benchmark of guidellm, of a few requests of made prompts, on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT, KEY = os.environ["HEADRACE_BASE_URL"], os.environ["HEADRACE_API_KEY"]
MODEL = os.environ["HEADRACE_MODEL"]
TOKENIZER = Path(__file__).parents[3] / "services/worker/headrace_worker/default_model"
REQUESTS, OUTPUT_TOKENS = 6, 16


@pytest.mark.timeout(500)
def test_requests_of_one_length_are_sent_and_measured(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = {
        "--backend": f"kind=openai_http,target={ROOT},model={MODEL},api_key={KEY}",
        "--profile": "kind=concurrent,streams=2",
        "--constraint": f"kind=max_requests,count={REQUESTS}",
        "--data": f"kind=synthetic_text,prompt_tokens=32,output_tokens={OUTPUT_TOKENS}",
        "--tokenizer": f"kind=huggingface_auto,model={TOKENIZER}",
        "--output": f"kind=json,path={report}",
    }
    command = [str(Path(sys.executable).parent / "guidellm"), "run", "--disable-console"]
    ran = subprocess.run(
        [*command, *(word for option in options.items() for word in option)],
        capture_output=True,
        text=True,
        check=False,
        timeout=450,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    done: list[dict[str, Any]] = benchmark["requests"]["successful"]
    assert len(done) == REQUESTS
    assert not benchmark["requests"]["errored"]
    assert {request["output_tokens"] for request in done} == {OUTPUT_TOKENS}
