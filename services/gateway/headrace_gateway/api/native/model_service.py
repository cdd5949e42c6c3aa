"""ModelService: which models are served, and their tokenizers."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from collections import Counter

from headrace.auth.check.interceptor import current_caller
from headrace.model_names import lane_id
from headrace.v1.common_pb2 import ModelTask
from headrace.v1.models_pb2 import (
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
        visible = self.services.catalog.visible(current_caller())
        return ListModelsResponse(models=[self._model(served, workers) for served in visible])

    async def GetModel(self, request: GetModelRequest, context: Context) -> Model:
        return await abort_on_error(context, self._get(request.model))

    async def Tokenize(self, request: TokenizeRequest, context: Context) -> TokenizeResponse:
        return await abort_on_error(context, tokenize(self.services, request, call_of(context)))

    async def _get(self, model: str) -> Model:
        served = self.services.catalog.get(model, current_caller())
        return self._model(served, serving(self.services.fleet))

    def _model(self, served: ServedModel, workers: Counter[str]) -> Model:
        card, catalog, caller = served.card, self.services.catalog, current_caller()
        taken = catalog.taken_aliases(served)
        makes_embeddings = task_of(card) == ModelTask.MODEL_TASK_EMBED
        adapters, count = catalog.adapters(served), workers[card.model]
        if served.adapter is not None:
            adapters, count = [served.adapter], served.adapter.workers
        return Model(
            name=served.name,
            aliases=catalog.aliases(served),
            taken_aliases=[name for name in taken if catalog.may_use(name, caller)],
            context_tokens=card.context_tokens,
            engine=card.engine,
            dtype=card.dtype,
            weights_digest=card.weights_digest,
            batch_invariant=card.batch_invariant,
            vocabulary_size=card.vocabulary_size,
            eos_token_ids=card.eos_token_ids,
            chat=served.tokenizer.chats,
            create_time=card.create_time,
            workers=count,
            max_choices=max_choices(card),
            adapters=adapters,
            task=task_of(card),
            dimensions=card.vectors.dimensions if makes_embeddings else 0,
            lane_id=lane_id(card.model),
            ready=count > 0,
        )


async def tokenize(services: ApiServices, request: TokenizeRequest, call: Call) -> TokenizeResponse:
    token_ids, tokens = await services.submitter.tokenize(tokenize_request(request, call))
    return TokenizeResponse(token_ids=token_ids, tokens=tokens)
