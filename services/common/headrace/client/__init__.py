"""Python client for a mesh: chats, texts, vectors, responses, files and batches.

    from headrace.client import Client

    with Client("http://127.0.0.1:8080") as client:
        answer = client.chat("Hello", model="valley", max_tokens=32)
        print(answer.text, answer.usage.output_tokens)
        for piece in client.chat_stream([("user", "Hello")], model="valley"):
            print(piece.text, end="")                          # over killed gateways, too
        request = client.generate_in_background("Hello", model="valley")
        print(request.request_id)                              # "6f0c…"; keep it
        same = client.background_request(request.request_id)   # in any process
        print(same.result(timeout_s=60).text)

A mesh that requires keys gets one with `Client(url, api_key="hr_...")`, or from HEADRACE_API_KEY.

`AsyncClient` has the same methods; await the calls and iterate with `async for`.

Every call raises a `headrace.errors.HeadraceError` for what the mesh rejects or fails with, and
`MeshUnreachable` where nothing answers at the URL. docs/python_client.md has all of it.
"""

from headrace.client.answers import Answer, Choice, Piece, ToolCall, ToolCallDelta, Usage
from headrace.client.background import AsyncBackgroundRequest, BackgroundRequest
from headrace.client.calls.retries import NO_RETRIES, Retries
from headrace.client.clients import AsyncClient, Client
from headrace.client.messages import ChatOptions, GenerateOptions, Prompt, make_request
from headrace.client.rest.batches import Batch, BatchResult
from headrace.client.rest.files import File
from headrace.client.rest.responses import Response, ResponseEvent
from headrace.client.sampling import Sampling
from headrace.client.streams import AsyncStream, Stream
from headrace.client.unreachable import ConnectionLost, MeshUnreachable
from headrace.client.vectors import Embeddings, RankedDocument, Ranking

__all__ = [
    "NO_RETRIES",
    "Answer",
    "AsyncBackgroundRequest",
    "AsyncClient",
    "AsyncStream",
    "BackgroundRequest",
    "Batch",
    "BatchResult",
    "ChatOptions",
    "Choice",
    "Client",
    "ConnectionLost",
    "Embeddings",
    "File",
    "GenerateOptions",
    "MeshUnreachable",
    "Piece",
    "Prompt",
    "RankedDocument",
    "Ranking",
    "Response",
    "ResponseEvent",
    "Retries",
    "Sampling",
    "Stream",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "make_request",
]
