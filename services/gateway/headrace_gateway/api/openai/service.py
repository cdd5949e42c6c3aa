"""The paths of OpenAI's API and of those beside it, which the proto gives, to their endpoints."""

from __future__ import annotations

from headrace.v1.openai_pb2_grpc import OpenAIServiceServicer
from headrace_gateway.api.compat import cohere, pooling, scoring, tei, tokenizing
from headrace_gateway.api.http.endpoint import get, post
from headrace_gateway.api.http.services import ApiServicer
from headrace_gateway.api.openai import embeddings, generation, models, moderations


class OpenAIService(ApiServicer, OpenAIServiceServicer):
    ChatCompletions = post(generation.chat)
    Completions = post(generation.completions)
    Embeddings = post(embeddings.embed)
    Rerank = post(tei.rerank, embeddings.rerank)
    RerankV2 = post(cohere.rerank)
    Score = post(scoring.score)
    Embed = post(tei.embed)
    Classify = post(pooling.classify)
    Pooling = post(pooling.pooling)
    Predict = post(tei.predict)
    Similarity = post(tei.similarity)
    EmbedAll = post(tei.embed_all)
    CreateModeration = post(moderations.create)
    Tokenize = post(
        tokenizing.tokenize_chat, tokenizing.tokenize_content, tokenizing.tokenize_prompt
    )
    Detokenize = post(tokenizing.detokenize)
    ListModels = get(models.ANTHROPIC_LIST, models.LIST)
    GetModel = get(models.ANTHROPIC_GET, models.GET)
