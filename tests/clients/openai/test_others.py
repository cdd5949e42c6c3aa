"""The other resources: models, embeddings, moderations, batches; and how errors arrive."""

from __future__ import annotations

import json
import os
import time

import openai
import pytest
from openai import OpenAI

MODEL = "valley"
EMBEDDER = os.environ["HEADRACE_EMBEDDING_MODEL"]


def test_models(client: OpenAI) -> None:
    assert {MODEL, EMBEDDER} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL


def test_completions(client: OpenAI) -> None:
    with client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=8, stream=True
    ) as chunks:
        assert "".join(chunk.choices[0].text for chunk in chunks)


def test_embeddings(client: OpenAI) -> None:
    texts = ["the river", "the mill"]
    made = client.embeddings.create(model=EMBEDDER, input=texts)
    assert [each.index for each in made.data] == [0, 1]
    plain = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    assert made.data[1].embedding == pytest.approx(plain.data[1].embedding)


def test_moderations(client: OpenAI) -> None:
    (result,) = client.moderations.create(input="the river").results
    assert 0 <= result.category_scores.harassment <= 1
    named = client.moderations.create(model="omni-moderation-latest", input=["a", "b"])
    assert len(named.results) == 2


def test_a_batch_from_file_to_results(client: OpenAI) -> None:
    rows = [
        {
            "custom_id": f"row-{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": MODEL, "messages": [{"role": "user", "content": "Who are you?"}]},
        }
        for i in range(3)
    ]
    lines = "\n".join(map(json.dumps, rows)).encode()
    file = client.files.create(file=("rows.jsonl", lines), purpose="batch")
    assert client.files.content(file.id).read() == lines
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.5)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.output_file_id is not None
    output = client.files.content(batch.output_file_id).text.splitlines()
    assert {json.loads(line)["custom_id"] for line in output} == {"row-0", "row-1", "row-2"}
    assert batch.id in {each.id for each in client.batches.list()}
    assert client.files.delete(file.id).deleted


def test_errors_have_the_classes_that_code_catches(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="absent", messages=[{"role": "user", "content": "a"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model=MODEL, prompt="a", temperature=9)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="maximum context length") as long:
        client.completions.create(model=MODEL, prompt="a b " * 9000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="none").models.list()


def test_a_deadline_of_the_caller_is_a_timeout(client: OpenAI) -> None:
    impatient = client.with_options(timeout=0.001, max_retries=1)
    with pytest.raises(openai.APITimeoutError):
        impatient.completions.create(model=MODEL, prompt="a", max_tokens=300)


def test_headers_that_code_reads(client: OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model=MODEL, prompt="a", max_tokens=1)
    assert raw.request_id
    assert raw.parse().choices
