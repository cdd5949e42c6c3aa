"""What the calls over gRPC do, for both clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import grpc
from google.protobuf.message import Message

from headrace.client import messages, vectors
from headrace.client.answers import Answer, AnswerBuilder
from headrace.client.calls.generation import GenerationCalls, GenerationReader
from headrace.client.calls.retries import Retries
from headrace.client.calls.scripts import GrpcCall, Script, collected, sent, then
from headrace.client.vectors import Embeddings, EmbedOptions, Ranking, RerankOptions
from headrace.v1.embeddings_pb2_grpc import EmbeddingServiceStub
from headrace.v1.fleet_pb2 import Lane, ListLanesRequest, ListWorkersRequest, Worker
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from headrace.v1.models_pb2 import ListModelsRequest, Model
from headrace.v1.models_pb2_grpc import ModelServiceStub
from headrace.v1.own_key_pb2 import GetOwnKeyRequest, OwnKey
from headrace.v1.own_key_pb2_grpc import OwnKeyServiceStub
from headrace.v1.requests_pb2 import AttachRequestRequest, CancelRequestRequest, Request
from headrace.v1.requests_pb2_grpc import RequestServiceStub

_TIMEOUT_S = 30.0
"""Of calls that do not wait for a model's output."""


class NativeScripts:
    """What the calls of both clients do."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel, retries: Retries) -> None:
        self.retries = retries
        # Typed as for threads; on a channel for the event loop, calls return awaitables.
        on = cast(grpc.Channel, channel)
        self._models, self._requests = ModelServiceStub(on), RequestServiceStub(on)
        self._fleet, self._own_key = FleetServiceStub(on), OwnKeyServiceStub(on)
        self._embedding = EmbeddingServiceStub(on)
        self._calls = GenerationCalls(GenerationServiceStub(on), self._requests)

    def read(
        self, sought: GenerateRequest | AttachRequestRequest, *, reattach: bool = True
    ) -> Script[None]:
        return GenerationReader(self._calls, sought, self.retries, reattach=reattach).read()

    def answer(self, request: GenerateRequest) -> Script[Answer]:
        """Read a stream to its end, so that an answer survives what a stream does."""
        builder = AnswerBuilder()
        yield from collected(self.read(request), builder.take)
        return builder.answer

    def embed(
        self, inputs: str | Sequence[str | Sequence[int]], model: str, options: EmbedOptions
    ) -> Script[Embeddings]:
        request = vectors.embed_request(inputs, model, options)
        return then(self._sent(self._embedding.Embed, request, None), vectors.embeddings)

    def rerank(
        self, query: str, documents: Sequence[str], model: str, options: RerankOptions
    ) -> Script[Ranking]:
        request = vectors.rerank_request(query, documents, model, options)
        ranked = self._sent(self._embedding.Rerank, request, None)
        return then(ranked, lambda response: vectors.ranking(response, documents))

    def create_request(self, request: GenerateRequest) -> Script[Request]:
        return self._sent(self._requests.CreateRequest, request)

    def get_request(self, request_id: str, wait_s: float) -> Script[Request]:
        request = messages.get_request(request_id, wait_s)
        return self._sent(self._requests.GetRequest, request, _TIMEOUT_S + wait_s)

    def cancel_request(self, request_id: str) -> Script[Request]:
        return self._sent(self._requests.CancelRequest, CancelRequestRequest(request_id=request_id))

    def models(self) -> Script[list[Model]]:
        listed = self._sent(self._models.ListModels, ListModelsRequest())
        return then(listed, lambda found: list(found.models))

    def own_key(self) -> Script[OwnKey]:
        return self._sent(self._own_key.GetOwnKey, GetOwnKeyRequest())

    def workers(self) -> Script[list[Worker]]:
        listed = self._sent(self._fleet.ListWorkers, ListWorkersRequest())
        return then(listed, lambda found: list(found.workers))

    def lanes(self) -> Script[list[Lane]]:
        listed = self._sent(self._fleet.ListLanes, ListLanesRequest())
        return then(listed, lambda found: list(found.lanes))

    def _sent(
        self, method: Callable[..., Any], request: Message, timeout_s: float | None = _TIMEOUT_S
    ) -> Script[Any]:
        return sent(GrpcCall(method, request, timeout_s), self.retries)
