"""Python client for a mesh's native gRPC API, blocking and asynchronous.

    from headrace.client import Client

    with Client("http://127.0.0.1:8080") as client:
        answer = client.generate("Hello", model="valley", max_tokens=32)
        print(answer.choices[0].text)                          # the whole answer
        for event in client.stream([("user", "Hello")], model="valley"):
            print(event.delta.text, end="")                    # token by token
        request = client.generate_in_background("Hello", model="valley")
        print(request.request_id)                              # "6f0c…"; keep it
        same = client.background_request(request.request_id)   # in any process
        print(same.result(timeout_s=60).choices[0].text)

A mesh that requires keys gets one with `Client(url, api_key="hr_...")`.

`AsyncClient` has the same methods; await the calls and iterate with `async for`.

Every call raises a `headrace.errors.HeadraceError` for what the mesh rejects or fails with, and
`MeshUnreachable` where nothing answers at the URL.
"""

from headrace.client.background import AsyncBackgroundRequest, BackgroundRequest
from headrace.client.clients import AsyncClient, Client, MeshUnreachable
from headrace.client.messages import Prompt, make_request
from headrace.client.sampling import Sampling

__all__ = [
    "AsyncBackgroundRequest",
    "AsyncClient",
    "BackgroundRequest",
    "Client",
    "MeshUnreachable",
    "Prompt",
    "Sampling",
    "make_request",
]
