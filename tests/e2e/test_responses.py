"""OpenAI's Responses and Conversations by its unchanged client, and each answer by its models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pydantic
import pytest
from openai.types.conversations import Conversation, ConversationItemList
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseItemList

from helpers.eventually import eventually
from helpers.running_mesh import RunningMesh, start, stop
from helpers.strict_openai import strict, strict_event, strict_response

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"town": {"type": "string"}},
        "required": ["town"],
        "additionalProperties": False,
    },
}
LONG: dict[str, Any] = {
    "model": "scripted",
    "input": "Hello",
    "background": True,
    "max_output_tokens": 400,
    "extra_body": {"ignore_eos": True},
}


@pytest.fixture(scope="module")
def valley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """The default model, which calls tools."""
    running = start(tmp_path_factory.mktemp("valley"))
    yield running
    stop(running)


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none") as client:
        yield client


@pytest.fixture
async def http(mesh: RunningMesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{mesh.url}/v1", trust_env=False, timeout=60) as client:
        yield client


async def is_ended(client: openai.AsyncOpenAI, response_id: str) -> bool:
    found = await client.responses.retrieve(response_id)
    return found.status not in ("queued", "in_progress")


async def test_whole_and_streamed_responses_are_what_openais_models_describe(
    http: httpx.AsyncClient,
) -> None:
    body = {
        "model": "scripted",
        "input": "Hello",
        "max_output_tokens": 8,
        "temperature": 0,
        "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
        "metadata": {"a": "b"},
    }
    whole = strict_response((await http.post("/responses", json=body)).json())
    stored = strict_response((await http.get(f"/responses/{whole.id}")).json())
    assert stored.output == whole.output
    answer = await http.post("/responses", json=body | {"stream": True})
    blocks = answer.text.strip().split("\n\n")
    events = []
    for block in blocks:
        name, data = block.split("\n")
        event = strict_event(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {event.type}"
        events.append(event)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == whole.output_text
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    items = (await http.get(f"/responses/{whole.id}/input_items")).json()
    assert len(strict(ResponseItemList, items).data) == 1


async def test_responses_that_are_not_stored_are_not_found(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(
        model="scripted", input="Hello", max_output_tokens=4, store=False
    )
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(
            model="scripted", input="More", previous_response_id=response.id
        )


async def test_a_background_response_is_polled_streamed_cancelled_and_deleted(
    client: openai.AsyncOpenAI,
) -> None:
    begun = await client.responses.create(**LONG)
    assert begun.status == "queued"
    seen = []
    stream = await client.responses.retrieve(begun.id, stream=True, starting_after=4)
    async for event in stream:
        seen.append(event.sequence_number)
        if len(seen) == 3:
            break
    assert seen == [5, 6, 7]
    cancelled = await client.responses.cancel(begun.id)
    assert cancelled.status == "cancelled"
    assert (await client.responses.retrieve(begun.id)).status == "cancelled"
    assert (await client.responses.cancel(begun.id)).status == "cancelled"
    await client.responses.delete(begun.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(begun.id)
    whole = await client.responses.create(model="scripted", input="Hello", max_output_tokens=4)
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.cancel(whole.id)


async def test_a_conversation_has_what_its_responses_added_one_after_the_other(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    made = await client.conversations.create(
        metadata={"topic": "mills"}, items=[{"role": "user", "content": "I am Ann."}]
    )
    strict(Conversation, (await http.get(f"/conversations/{made.id}")).json())
    begun = await client.responses.create(**LONG, conversation=made.id)
    with pytest.raises(openai.ConflictError, match="locked"):
        await client.with_options(max_retries=0).responses.create(
            model="scripted", input="And", conversation=made.id
        )
    await eventually(lambda: is_ended(client, begun.id), within_s=60)
    last = await client.responses.create(
        model="scripted", input="Then?", conversation=made.id, max_output_tokens=4
    )
    assert last.conversation is not None
    listed = (await http.get(f"/conversations/{made.id}/items?order=asc&limit=3")).json()
    page = strict(ConversationItemList, listed)
    assert page.has_more
    items = [item async for item in client.conversations.items.list(made.id, order="asc")]
    assert [getattr(item, "role", "") for item in items] == [
        *("user", "user", "assistant", "user", "assistant")
    ]
    await client.conversations.items.delete(items[0].id or "", conversation_id=made.id)
    await client.conversations.update(made.id, metadata={})
    await client.conversations.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(made.id)


class Pet(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    legs: int


@pytest.mark.timeout(240)
def test_tools_are_called_turn_by_turn_and_texts_are_parsed(valley: RunningMesh) -> None:
    with openai.OpenAI(base_url=f"{valley.url}/v1", api_key="none") as client:
        question = "What is the weather in Willowmere?"
        asked = client.responses.create(
            model="valley", input=question, tools=[WEATHER], tool_choice="required", temperature=0
        )
        (call,) = asked.output
        assert isinstance(call, ResponseFunctionToolCall)
        assert set(json.loads(call.arguments)) == {"town"}
        strict_response(asked.to_dict())
        answer = client.responses.create(
            model="valley",
            previous_response_id=asked.id,
            input=[
                {"type": "function_call_output", "call_id": call.call_id, "output": "Rain, 9 C"}
            ],
            tools=[WEATHER],
            temperature=0,
        )
        listed = [item.type for item in client.responses.input_items.list(answer.id, order="asc")]
        assert listed == ["message", "function_call", "function_call_output"]
        same = client.chat.completions.create(
            model="valley",
            messages=_as_chat(question, asked, "Rain, 9 C"),
            tools=[{"type": "function", "function": _function(WEATHER)}],
            temperature=0,
        )
        assert answer.output_text == same.choices[0].message.content
        counted = client.responses.input_tokens.count(
            model="valley", input=question, tools=[WEATHER]
        )
        assert asked.usage is not None
        assert counted.input_tokens == asked.usage.input_tokens
        parsed = client.responses.parse(
            model="valley", input="Invent a pet.", text_format=Pet, temperature=0
        )
        assert isinstance(parsed.output_parsed, Pet)
        with client.responses.stream(
            model="valley", input=question, tools=[WEATHER], tool_choice="required", temperature=0
        ) as stream:
            final = stream.get_final_response()
        assert [item.type for item in final.output] == ["function_call"]


def _function(tool: dict[str, Any]) -> Any:
    return {name: value for name, value in tool.items() if name != "type"}


def _as_chat(question: str, asked: Response, output: str) -> Any:
    (call,) = asked.output
    assert isinstance(call, ResponseFunctionToolCall)
    function = {"name": call.name, "arguments": call.arguments}
    return [
        {"role": "user", "content": question},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call.call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call.call_id, "content": output},
    ]
