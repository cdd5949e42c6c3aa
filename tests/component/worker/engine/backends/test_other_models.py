"""Models of other engines: the error at the start when they cannot be served."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.settings import load, redacted_json
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.llama_cpp import load_llama_cpp
from headrace_worker.engine.base.loaded_model import ModelLoadFailed, ModelUnreachable
from headrace_worker.serving.models import load_model
from helpers.http_server import answer, http_server
from helpers.other_engines import scripted_tokenizer, upstream
from helpers.tiny_tokenizers import byte_fallback
from helpers.worker_actors import worker_process
from helpers.worker_settings import worker_settings

LISTED = answer(body='{"data": [{"id": "toy", "max_model_len": 64}]}')
WITHOUT_IDS = answer(body='data: {"choices": [{"text": "a", "finish_reason": "length"}]}\n\n')
WITH_IDS = answer(body='data: {"choices": [{"token_ids": [9], "finish_reason": "length"}]}\n\n')


@pytest.mark.parametrize(("engine", "package"), [("llama-cpp", "xllamacpp"), ("vllm", "vllm")])
def test_the_error_of_a_missing_engine_package_says_how_to_install_it(
    engine: str, package: str
) -> None:
    # As if it were absent, wherever this test runs: None there fails the import.
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from headrace_worker.serving.models import load_model\n"
        "from headrace_worker.base.settings import WorkerSettings\n"
        f"load_model(WorkerSettings(engine={engine!r}, model_source='x'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert f"needs the package {package}, which is not installed here" in ran.stderr
    assert f"pip install 'headrace[{engine}]'" in ran.stderr


def test_tensor_parallel_without_its_package_says_how_to_install_it() -> None:
    program = (
        "import sys; sys.modules['accelerate'] = None\n"
        "from headrace_worker.serving.models import is_follower\n"
        "from headrace_worker.base.settings import WorkerSettings\n"
        "is_follower(WorkerSettings(tensor_parallel=True, model_source='x'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "tensor_parallel needs the package accelerate, which is not installed" in ran.stderr
    assert "pip install accelerate" in ran.stderr


def test_a_gguf_file_that_is_none_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="there is no such file"):
        load_llama_cpp(worker_settings(model_source=str(tmp_path / "absent.gguf")))
    (tmp_path / "bad.gguf").write_bytes(b"no GGUF, whatever its name" * 9)
    with pytest.raises(ModelLoadFailed, match=r"bad.gguf cannot be loaded: it is no GGUF file"):
        load_llama_cpp(worker_settings(model_source=str(tmp_path / "bad.gguf")))


@pytest.mark.parametrize(
    ("answers", "fact"),
    [
        ([LISTED, WITHOUT_IDS], "returns no token ids.*set upstream_speaks to text"),
        ([answer(401, '{"error": {"message": "no key"}}')], "answers 401: no key"),
        ([answer(body='{"data": []}'), answer(404, "gone")], "answers 404: gone"),
        ([answer(body='{"data": [{"id": "toy"}]}')], "set context_tokens"),
    ],
)
async def test_a_server_that_cannot_serve_the_model_is_distinguished_from_an_unreachable_one(
    tmp_path: Path, answers: list[bytes], fact: str
) -> None:
    async with http_server(*answers) as server:
        with pytest.raises(ModelLoadFailed, match=fact) as refused:
            await asyncio.to_thread(upstream, tmp_path, server.url, "toy", context_tokens=None)
        assert not isinstance(refused.value, ModelUnreachable)
    with pytest.raises(ModelUnreachable, match="is unreachable"):
        await asyncio.to_thread(upstream, tmp_path, server.url, "toy", upstream_retries=0)


async def test_the_context_is_the_servers_at_most_what_is_set(tmp_path: Path) -> None:
    for requested, got in ((None, 64), (48, 48), (100, 64)):
        async with http_server(LISTED, WITH_IDS) as server:
            loaded = await asyncio.to_thread(
                upstream, tmp_path, server.url, "toy", context_tokens=requested
            )
        assert loaded.engine.facts.context_tokens == got


async def test_a_tokenizer_that_changes_text_in_pieces_is_refused_for_text_protocols(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "byte-fallback"
    scripted_tokenizer(folder)
    byte_fallback().save(str(folder / "tokenizer.json"))
    async with http_server(LISTED, WITH_IDS) as server:
        values = {"engine": "openai", "model_source": server.url, "model_name": "toy"}
        values["model_tokenizer"] = str(folder)
        settings = WorkerSettings.model_validate(values | {"upstream_speaks": "text"})
        with pytest.raises(ModelLoadFailed, match="changes text that it encodes piece by piece"):
            await asyncio.to_thread(load_model, settings)
        server.answers = [LISTED, WITH_IDS]
        loaded = await asyncio.to_thread(load_model, WorkerSettings.model_validate(values))
        assert loaded.engine.facts.capabilities.resume


@pytest.mark.parametrize(
    ("fields", "fact"),
    [
        ({"model_source": "valley"}, "takes a URL as its model"),
        ({}, "needs model_tokenizer"),
        ({"model_tokenizer": "t", "upstream_api_key_file": "/nowhere/key"}, "cannot be read"),
    ],
)
def test_what_the_openai_engine_lacks_is_named(fields: dict[str, Any], fact: str) -> None:
    values = {"engine": "openai", "model_source": "http://127.0.0.1:9/v1"} | fields
    with pytest.raises(ModelLoadFailed, match=fact):
        load_model(WorkerSettings.model_validate(values))


def test_a_key_is_not_printed_with_the_settings() -> None:
    settings = load(WorkerSettings, ["--upstream-api-key=sk-very-secret"])
    assert settings.upstream_api_key is not None
    assert settings.upstream_api_key.get_secret_value() == "sk-very-secret"
    assert "very-secret" not in redacted_json(settings) + repr(settings)


async def test_a_worker_whose_upstream_is_unreachable_exits_so_that_it_is_restarted(
    nats_url: str, tmp_path: Path
) -> None:
    tokenizer = scripted_tokenizer(tmp_path / "tokenizer")
    source: dict[str, Any] = {
        "model_source": "http://127.0.0.1:9/v1",
        "model_tokenizer": tokenizer,
    }
    async with worker_process(nats_url, tmp_path, engine="openai", **source) as worker:
        assert await worker.exit_status(within_s=40) == 1
    assert "is unreachable" in (tmp_path / "worker.log").read_text()
