"""A small client over the native gRPC API, in two forms that differ only in `await`.

    with Client("http://127.0.0.1:8080") as client:
        print(client.generate("Hello", model="valley", max_tokens=32).choices[0].text)
        for event in client.stream([("user", "Hello")], model="valley"):
            print(event.delta.text, end="")
        later = client.detach("Hello", model="valley")  # Goes on without us; by its request_id,
        print(client.detached(later.request_id).result().choices[0].text)  # anybody has it.

Every call raises a `HeadraceError` for what the mesh refuses or fails with,
`MeshUnreachable` where nothing answers at the URL.
"""

from headrace.client.background import AsyncDetached, Detached
from headrace.client.clients import (
    AsyncClient,
    Client,
    MeshUnreachable,
    Prompt,
    make_request,
)
from headrace.client.sampling import Sampling

__all__ = [
    "AsyncClient",
    "AsyncDetached",
    "Client",
    "Detached",
    "MeshUnreachable",
    "Prompt",
    "Sampling",
    "make_request",
]
