"""A worker that fetches its model: what it reports meanwhile, and what it serves then."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import httpx

import headrace_worker
from helpers.eventually import eventually
from helpers.loopback_hub import COMMIT, loopback_hub
from helpers.worker_actors import SchedulerActor, worker_process

DEFAULT_MODEL = Path(headrace_worker.__file__).parent / "default_model"


async def test_a_model_is_fetched_from_the_hub_at_its_revision_and_readyz_reports_the_progress(
    nats_url: str, scheduler: SchedulerActor, tmp_path: Path
) -> None:
    ports = tmp_path / "ports.json"
    settings = {"engine": "transformers", "model_source": "somebody/valley", "threads": 1}
    settings |= {"model_revision": "v1", "ports_file": ports, "drain_s": 0, "max_slots": 2}
    with loopback_hub("somebody/valley", DEFAULT_MODEL) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")}
        async with (
            worker_process(nats_url, tmp_path, environment=environment, **settings) as worker,
            httpx.AsyncClient(trust_env=False) as http,
        ):
            await eventually(ports.exists, within_s=30)
            ready_url = f"http://127.0.0.1:{json.loads(ports.read_text())['metrics']}/readyz"

            async def is_fetching() -> bool:
                answer = await http.get(ready_url)
                assert answer.status_code == 503
                return re.fullmatch(r"fetching files \d+ %\n", answer.text) is not None

            await eventually(is_fetching, within_s=30)
            hub.may_go_on.set()
            await eventually(lambda: bool(scheduler.reports), within_s=50)
            assert (await http.get(ready_url)).text == "ok\n"
            assert hub.asked[0] == "v1"
            assert list((tmp_path / "hub").rglob(f"snapshots/{COMMIT}/config.json"))
            worker.send(signal.SIGTERM)
            assert await worker.exit_status() == 0
    lines = (tmp_path / "worker.log").read_text().splitlines()
    log = [json.loads(line) for line in lines if line.startswith("{")]
    events = [line["event"] for line in log]
    told = [events.index(each) for each in ("model.loading", "model.loaded", "worker.ready")]
    assert told == sorted(told)
    assert not [event for event in events if event.startswith("HTTP")], "a line for each request"
    (chosen,) = [line for line in log if line["event"] == "engine.chosen"]
    assert (chosen["threads"], chosen["threads_why"], chosen["max_slots"]) == (1, "set", 2)
    assert "parameters" in chosen["prefill_chunk_tokens_why"]
