"""Batches of rows for the scripted model, made and read by OpenAI's client."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import openai
from openai.types import Batch

TOKENS = 100
ENDED_WITHIN_S = 120.0


def row(number: int, **changes: Any) -> dict[str, Any]:
    body = {
        "model": "scripted",
        "prompt": f"Number {number}",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 1.0,
        "seed": number,
    }
    url = "/v1/completions"
    return {"custom_id": f"row-{number}", "method": "POST", "url": url, "body": body} | changes


async def create(client: openai.AsyncOpenAI, rows: list[dict[str, Any]], **options: Any) -> Batch:
    content = "\n".join(map(json.dumps, rows)).encode()
    file = await client.files.create(file=("rows.jsonl", content), purpose="batch")
    options = {"endpoint": "/v1/completions", "completion_window": "24h"} | options
    return await client.batches.create(input_file_id=file.id, **options)


async def ended(client: openai.AsyncOpenAI, batch: Batch) -> Batch:
    async with asyncio.timeout(ENDED_WITHIN_S):
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            await asyncio.sleep(0.1)
            batch = await client.batches.retrieve(batch.id)
    return batch


async def lines(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    content = await client.files.content(file_id)
    return [json.loads(line) for line in content.text.splitlines()]


async def billed(
    client: openai.AsyncOpenAI, kind: str = "completions", of: str = "output_tokens"
) -> int:
    """Return what rows of batches are billed, in all."""
    day = int(time.time()) - 24 * 3600
    query = {"start_time": day, "batch": "true", "bucket_width": "1d"}
    page: Any = await client.get(
        f"/organization/usage/{kind}", cast_to=object, options={"params": query}
    )
    results = [result for bucket in page["data"] for result in bucket["results"]]
    return sum(result[of] for result in results)


def texts(output: list[dict[str, Any]]) -> dict[str, str]:
    return {line["custom_id"]: line["response"]["body"]["choices"][0]["text"] for line in output}
