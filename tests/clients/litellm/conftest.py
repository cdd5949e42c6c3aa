"""The mesh, as LiteLLM is pointed at it; and LiteLLM's proxy in front of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

URL, KEY = os.environ["HEADRACE_BASE_URL"] + "/v1", os.environ["HEADRACE_API_KEY"]
READY_S = 250
PROXY_KEY = "sk-proxy"


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a proxy that has a chat model and one that embeds."""
    folder = tmp_path_factory.mktemp("proxy")
    names = (os.environ["HEADRACE_MODEL"], os.environ["HEADRACE_EMBEDDING_MODEL"])
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": URL, "api_key": KEY},
        }
        for name in names
    ]
    config = folder / "config.yaml"  # JSON is YAML, too
    config.write_text(
        json.dumps({"model_list": models, "general_settings": {"master_key": PROXY_KEY}})
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = Path(sys.executable).with_name("litellm")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(command), "--config", str(config), "--host", "127.0.0.1", "--port", port],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            if httpx.get(f"{url}/health/readiness", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    pytest.fail(f"the proxy is not ready:\n{log.read_text()[-3000:]}")
