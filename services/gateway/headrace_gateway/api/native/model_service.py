"""ModelService: which models are served, and their tokenizers."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from headrace.model_names import lane_id
from headrace.v1.common_pb2 import ModelTask
from headrace.v1.models_pb2 import (
    Adapter,
    GetModelRequest,
    ListModelsRequest,
    ListModelsResponse,
    Model,
    TokenizeRequest,
    TokenizeResponse,
)
from headrace.v1.models_pb2_grpc import ModelServiceServicer
from headrace_gateway.api.http.services import ApiServicer, ApiServices
from headrace_gateway.api.native.convert import tokenize_request
from headrace_gateway.api.native.grpc_errors import abort_on_error
from headrace_gateway.base.calls import Call, Context, call_of
from headrace_gateway.checks.validation import max_choices
from headrace_gateway.models.catalog import ServedModel
from headrace_gateway.request.tasks import task_of
from headrace_gateway.resume.ports import serving


class ModelService(ApiServicer, ModelServiceServicer):
    async def ListModels(self, request: ListModelsRequest, context: Context) -> ListModelsResponse:
        workers = serving(self.services.fleet)
        models = [self._model(served, workers) for served in self.services.catalog.all()]
        return ListModelsResponse(models=models)

    async def GetModel(self, request: GetModelRequest, context: Context) -> Model:
        return await abort_on_error(context, self._get(request.model))

    async def Tokenize(self, request: TokenizeRequest, context: Context) -> TokenizeResponse:
        return await abort_on_error(context, tokenize(self.services, request, call_of(context)))

    async def _get(self, model: str) -> Model:
        return self._model(self.services.catalog.get(model), serving(self.services.fleet))

    def _model(self, served: ServedModel, workers: Counter[str]) -> Model:
        adapters = self.services.catalog.adapters(served)
        if served.adapter is None:
            model = _model(served, workers[served.card.model], adapters)
        else:
            model = _model(served, served.adapter.workers, [served.adapter])
        model.aliases.extend(self.services.catalog.aliases(served))
        model.taken_aliases.extend(self.services.catalog.taken_aliases(served))
        return model


async def tokenize(services: ApiServices, request: TokenizeRequest, call: Call) -> TokenizeResponse:
    token_ids, tokens = await services.submitter.tokenize(tokenize_request(request, call))
    return TokenizeResponse(token_ids=token_ids, tokens=tokens)


def _model(served: ServedModel, workers: int, adapters: Iterable[Adapter]) -> Model:
    card = served.card
    makes_embeddings = task_of(card) == ModelTask.MODEL_TASK_EMBED
    return Model(
        name=served.name,
        context_tokens=card.context_tokens,
        engine=card.engine,
        dtype=card.dtype,
        weights_digest=card.weights_digest,
        batch_invariant=card.batch_invariant,
        vocabulary_size=card.vocabulary_size,
        eos_token_ids=card.eos_token_ids,
        chat=served.tokenizer.chats,
        create_time=card.create_time,
        workers=workers,
        max_choices=max_choices(card),
        adapters=adapters,
        task=task_of(card),
        dimensions=card.vectors.dimensions if makes_embeddings else 0,
        lane_id=lane_id(card.model),
        ready=workers > 0,
    )
