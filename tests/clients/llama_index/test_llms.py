"""LlamaIndex with a server that is like OpenAI's: completion, chat, tools, an agent, an index.

It makes schemas of functions in another module, so annotations here are no strings.
"""

import os
from typing import Any, Literal

from llama_index.core import Document, PromptTemplate, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

URL, KEY = os.environ["HEADRACE_BASE_URL"] + "/v1", os.environ["HEADRACE_API_KEY"]
COUNTED = "3, 4, 5, 6, 7, 8, 9"
SERVER: Any = {
    "model": os.environ["HEADRACE_MODEL"],
    "api_base": URL,
    "api_key": KEY,
    "temperature": 0,
    "max_tokens": 60,
    "context_window": 1024,
}
completing = OpenAILike(**SERVER)
chatting = OpenAILike(**SERVER, is_chat_model=True, is_function_calling_model=True)
embedder = OpenAILikeEmbedding(
    model_name=os.environ["HEADRACE_EMBEDDING_MODEL"], api_base=URL, api_key=KEY
)
COUNT = [ChatMessage(role="user", content="Count from 3 to 9.")]


def get_weather(town: Literal["Oakford", "Millbrook"]) -> str:
    """The weather of a town."""
    return f'{{"town": "{town}", "sky": "windy", "degrees": 14}}'


class Sky(BaseModel):
    """What the sky is like."""

    sky: Literal["windy", "rainy"]


def test_a_completion_and_its_stream_are_equal() -> None:
    text = completing.complete("Once upon a time").text
    assert text
    pieces = [piece.delta for piece in completing.stream_complete("Once upon a time")]
    assert "".join(piece or "" for piece in pieces) == text


async def test_chat_and_its_streams_are_equal() -> None:
    assert chatting.chat(COUNT).message.content == COUNTED
    assert "".join(piece.delta or "" for piece in chatting.stream_chat(COUNT)) == COUNTED
    pieces = [piece.delta or "" async for piece in await chatting.astream_chat(COUNT)]
    assert "".join(pieces) == COUNTED


def test_tools_are_called_whole_and_in_a_stream() -> None:
    offered = [FunctionTool.from_defaults(get_weather)]
    asked = "What is the weather in Oakford?"
    *_, streamed = chatting.stream_chat_with_tools(offered, asked)
    for answer in (chatting.chat_with_tools(offered, asked), streamed):
        (call,) = chatting.get_tool_calls_from_response(answer)
        assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"town": "Oakford"})
    forced = chatting.chat_with_tools(offered, "Who are you?", tool_required=True)
    (call,) = chatting.get_tool_calls_from_response(forced)
    assert call.tool_kwargs["town"] in ("Oakford", "Millbrook")


async def test_an_agent_uses_its_tool_and_answers() -> None:
    agent = FunctionAgent(tools=[get_weather], llm=chatting)
    running = agent.run("What is the weather in Oakford?", max_iterations=4)
    events = [event async for event in running.stream_events()]
    (called,) = (event for event in events if isinstance(event, ToolCallResult))
    assert called.tool_kwargs == {"town": "Oakford"}
    assert "windy in Oakford" in str(await running)


def test_structured_output_by_a_tool_and_by_a_response_format() -> None:
    asked = PromptTemplate("What is the weather in {town}?")
    by_format = OpenAILike(**SERVER, is_chat_model=True, should_use_structured_outputs=True)
    for model in (chatting, by_format):
        assert isinstance(model.structured_predict(Sky, asked, town="Oakford"), Sky)
    assert isinstance(chatting.as_structured_llm(Sky).chat(COUNT).raw, Sky)


def test_an_index_is_asked() -> None:
    documents = [Document(text="Ada is the baker of Willowmere."), Document(text="A river.")]
    index = VectorStoreIndex.from_documents(documents, embed_model=embedder)
    (found,) = index.as_retriever(similarity_top_k=1).retrieve("A river.")
    assert found.text == "A river."
    assert str(index.as_query_engine(llm=chatting).query("Who is Ada?"))
