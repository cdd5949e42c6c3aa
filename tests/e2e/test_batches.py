"""Batches through the whole mesh, by OpenAI's client."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch
from openai.types.responses import Response

from helpers.batch_rows import ENDED_WITHIN_S, TOKENS, billed, create, ended, lines, row, texts
from helpers.command import headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.running_mesh import start, stop
from helpers.tiny_encoders import save_encoder, save_modules, tiny_encoder

ROWS = 200
SLOTS = ("--set", "worker.max_slots=8")
VICTIMS = (
    "control-0",
    "gateway-0",
    "worker-scripted-0",
    "scheduler-0",
    "gateway-1",
    "worker-scripted-1",
)


async def progressed(client: openai.AsyncOpenAI, batch: Batch, *, to: int) -> Batch:
    """Return the batch once so many of its rows are answered."""
    async with asyncio.timeout(ENDED_WITHIN_S):
        while (counts := batch.request_counts) is None or counts.completed < to:
            await asyncio.sleep(0.05)
            batch = await client.batches.retrieve(batch.id)
    return batch


async def through_kills(
    mesh: FreshMesh, client: openai.AsyncOpenAI, batch: Batch, *, rows: int, victims: Sequence[str]
) -> list[dict[str, Any]]:
    """Kill processes while a batch runs; return its output, which has each row once."""
    for number, victim in enumerate(victims, 1):
        batch = await progressed(client, batch, to=number * rows // (2 * len(victims)))
        assert batch.status == "in_progress", f"it ended before the death of {victim}"
        await mesh.kill(victim)
    batch = await ended(client, batch)
    assert batch.status == "completed"
    assert await lines(client, batch.error_file_id) == []
    output = await lines(client, batch.output_file_id)
    assert [line["custom_id"] for line in output] == [f"row-{number}" for number in range(rows)]
    return output


async def stays_billed(client: openai.AsyncOpenAI, kind: str, requests: int) -> None:
    """So many requests are billed, and no more once every record is stored."""

    async def are_billed() -> bool:
        return await billed(client, kind, "num_model_requests") >= requests

    await eventually(are_billed, within_s=30)
    assert await billed(client, kind, "num_model_requests") == requests


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshMesh]:
    folder = tmp_path_factory.mktemp("batches")
    running = start(folder / ".headrace", "--engine", "scripted", "--scripted-step-ms", "5")
    yield FreshMesh(folder, running.url)
    stop(running)


@pytest.fixture
async def client(mesh: FreshMesh) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none") as client:
        yield client


@pytest.mark.timeout(300)
async def test_a_batch_survives_the_death_of_every_process_and_each_row_is_answered_once(
    tmp_path: Path,
) -> None:
    options = ("--gateways", "2", "--workers", "2", "--scripted-step-ms", "10", *SLOTS)
    rows = [row(number) for number in range(ROWS)]
    async with (
        fresh_mesh(tmp_path, *options) as mesh,
        openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=60) as client,
    ):
        undisturbed = await ended(client, await create(client, rows))
        batch = await create(client, rows)
        struck = []
        for number, victim in enumerate(VICTIMS, 1):
            batch = await progressed(client, batch, to=number * ROWS // 10)
            assert batch.status == "in_progress", f"it ended before the death of {victim}"
            struck.append(mesh.strike(victim))
        batch = await ended(client, batch)
        assert batch.status == undisturbed.status == "completed"
        assert await lines(client, batch.error_file_id) == []
        assert batch.request_counts is not None
        assert (batch.request_counts.completed, batch.request_counts.failed) == (ROWS, 0)
        output = await lines(client, batch.output_file_id)
        assert [line["custom_id"] for line in output] == [each["custom_id"] for each in rows]
        assert texts(output) == texts(await lines(client, undisturbed.output_file_id))
        assert batch.usage is not None
        assert batch.usage.output_tokens == ROWS * TOKENS
        for process in struck:
            await mesh.back(process)

        async def each_token_is_billed_once() -> bool:
            return await billed(client) == 2 * ROWS * TOKENS

        await eventually(each_token_is_billed_once, within_s=30)


@pytest.mark.timeout(200)
async def test_vectors_and_several_prompts_of_a_row_are_billed_once_through_kills(
    tmp_path: Path,
) -> None:
    encoder = save_encoder(tmp_path / "toy", tiny_encoder())
    save_modules(encoder, pooling={"pooling_mode": "mean"}, normalise=True)
    models = ("--model", "default", "--model", f"{encoder}=toy", "--gateways", "2")
    slow = ("--set", "worker.encoder_pass_tokens=64", *SLOTS)
    count, prompts = 40, 3
    running = start(tmp_path / ".headrace", *models, *slow)
    mesh = FreshMesh(tmp_path, running.url)
    try:
        async with openai.AsyncOpenAI(
            base_url=f"{mesh.url}/v1", api_key="none", max_retries=60
        ) as client:
            url, texts = "/v1/embeddings", [f"the mill {'and the river ' * 20}"] * 20
            body = {"model": "toy", "input": texts}
            rows = [row(number, url=url, body=body) for number in range(count)]
            batch = await create(client, rows, endpoint=url)
            victims = ("gateway-0", "control-0")
            output = await through_kills(mesh, client, batch, rows=count, victims=victims)
            vectors = [len(line["response"]["body"]["data"]) for line in output]
            assert vectors == [len(texts)] * count
            counts = (line["response"]["body"]["usage"]["prompt_tokens"] for line in output)
            counted = sum(map(int, counts))

            async def each_input_is_billed_once() -> bool:
                return await billed(client, "embeddings", "input_tokens") == counted

            await eventually(each_input_is_billed_once, within_s=30)
            body = row(0)["body"] | {"model": "valley", "prompt": ["a", "b", "c"], "max_tokens": 8}
            rows = [row(number, body=body | {"seed": number}) for number in range(count)]
            batch = await create(client, rows)
            output = await through_kills(mesh, client, batch, rows=count, victims=victims[:1])
            choices = [len(line["response"]["body"]["choices"]) for line in output]
            assert choices == [prompts] * count
            tokens = [line["response"]["body"]["usage"]["completion_tokens"] for line in output]
            await stays_billed(client, "completions", prompts * count)
            assert await billed(client) == sum(tokens)
    finally:
        stop(running)


async def test_a_batch_of_chat_and_of_vectors_and_what_fails_in_them(
    client: openai.AsyncOpenAI,
) -> None:
    url = "/v1/chat/completions"
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    rows = [row(1, url=url, body=body), row(2, url=url, body=body | {"temperature": 9})]
    batch = await ended(client, await create(client, rows, endpoint=url, metadata={"a": "b"}))
    assert (batch.status, batch.metadata) == ("completed", {"a": "b"})
    (good,) = await lines(client, batch.output_file_id)
    assert good["response"]["body"]["object"] == "chat.completion"
    assert good["response"]["request_id"].startswith(batch.id)
    (bad,) = await lines(client, batch.error_file_id)
    assert (bad["custom_id"], bad["response"]["status_code"], bad["error"]) == ("row-2", 400, None)
    assert bad["response"]["body"]["error"]["param"] == "temperature"
    listed = await client.batches.list(limit=1)
    assert [each.id for each in listed.data] == [batch.id]


async def test_a_batch_of_responses_is_billed_and_answered_as_responses_are(
    client: openai.AsyncOpenAI,
) -> None:
    url, body = "/v1/responses", {"model": "scripted", "input": "Hi", "max_output_tokens": 3}
    # The rows' responses are in the output alone, also where OpenAI's default is written out.
    rows = [row(1, url=url, body=body), row(2, url=url, body=body | {"store": True})]
    rows.append(row(3, url=url, body=body | {"previous_response_id": "resp_none"}))
    before = await billed(client)
    batch = await ended(client, await create(client, rows, endpoint=url))
    assert batch.status == "completed"
    answered = await lines(client, batch.output_file_id)
    assert len(answered) == 2
    for line in answered:
        response = Response.model_validate(line["response"]["body"])
        assert response.incomplete_details is not None
        assert (response.status, response.incomplete_details.reason) == (
            *("incomplete", "max_output_tokens"),
        )
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response.id)
    (bad,) = await lines(client, batch.error_file_id)
    assert bad["response"]["body"]["error"]["param"] == "previous_response_id"
    assert batch.usage is not None
    assert batch.usage.output_tokens == 6

    async def is_billed() -> bool:
        return await billed(client) == before + 6

    await eventually(is_billed, within_s=30)


async def test_a_batch_with_a_bad_line_fails_with_its_number(client: openai.AsyncOpenAI) -> None:
    rows = [row(1), row(1), row(2, method="GET"), row(3, body={"model": "none", "prompt": "x"})]
    batch = await ended(client, await create(client, rows))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(error.code, error.line) for error in batch.errors.data] == [
        ("duplicate_custom_id", 2),
        ("invalid_method", 3),
        ("model_not_found", 4),
    ]
    assert "The model `none` does not exist" in str(batch.errors.data[2].message)
    with pytest.raises(openai.NotFoundError, match="file"):
        await client.batches.create(
            input_file_id="file-none", endpoint="/v1/completions", completion_window="24h"
        )
    with pytest.raises(openai.BadRequestError, match="completion_window"):
        await create(client, [row(1)], completion_window="soon")


async def test_a_cancelled_batch_keeps_what_is_finished(client: openai.AsyncOpenAI) -> None:
    rows = [row(number) for number in range(ROWS)]
    batch = await create(client, rows)
    async with asyncio.timeout(30):
        while batch.request_counts is None or not batch.request_counts.completed:
            batch = await client.batches.retrieve(batch.id)
    batch = await client.batches.cancel(batch.id)
    assert batch.status in ("cancelling", "cancelled")
    batch = await ended(client, batch)
    assert batch.status == "cancelled"
    output = await lines(client, batch.output_file_id)
    errors = await lines(client, batch.error_file_id)
    assert output
    assert Counter(line["custom_id"] for line in [*output, *errors]) == Counter(
        each["custom_id"] for each in rows
    )
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}


async def test_the_command_creates_a_batch_waits_for_it_and_prints_its_output(
    mesh: FreshMesh,
) -> None:
    file = mesh.folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row(number)) for number in range(3)))
    made = await headrace(
        *("batch", "create", str(file), "--endpoint", "/v1/completions", "--wait", "--json"),
        folder=mesh.folder,
    )
    assert made.status == 0, made.err
    batch = json.loads(made.out)
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 3)
    output = await headrace("batch", "output", batch["id"], folder=mesh.folder)
    assert [json.loads(line)["custom_id"] for line in output.out.splitlines()] == [
        *("row-0", "row-1", "row-2")
    ]
    waited = await headrace("batch", "wait", batch["id"], folder=mesh.folder)
    assert (waited.status, waited.err) == (0, f"{batch['id']}: completed, 3/3 rows\n")
    assert "3 completed, 0 failed of 3" in waited.out
    file.write_text(json.dumps(row(1, method="GET")))
    wrong = await headrace(
        *("batch", "create", str(file), "--endpoint", "/v1/completions", "--json"),
        folder=mesh.folder,
    )
    failed = await headrace("batch", "wait", json.loads(wrong.out)["id"], folder=mesh.folder)
    assert (failed.status, "method is 'GET'" in failed.out) == (1, True)
    shown = await headrace("batch", "show", batch["id"], folder=mesh.folder)
    assert "completed" in shown.out
    listed = await headrace("batch", "list", folder=mesh.folder)
    assert batch["id"] in listed.out
    refused = await headrace("batch", "cancel", batch["id"], folder=mesh.folder)
    assert refused.status == 2
    assert "cannot be cancelled any more" in refused.err
