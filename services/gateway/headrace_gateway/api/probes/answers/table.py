"""Which call answers with what."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from headrace.supervisor.servers.local_replies import COHERE_PATH, TEI_PATHS
from headrace.supervisor.servers.rest_paths import RestPath
from headrace_gateway.api.probes.answers.computed import (
    ClassList,
    CohereRanking,
    Detokenized,
    EmbeddingList,
    ModerationAnswer,
    PoolingList,
    Ranking,
    ScoreList,
    TeiLabels,
    TeiRanks,
    TeiSimilarities,
    TeiVectors,
    TokenCount,
    TokenPieces,
)
from headrace_gateway.api.probes.answers.generated import (
    ChatCompletion,
    ChatCompletionChunk,
    TextCompletion,
    TextCompletionChunk,
)
from headrace_gateway.api.probes.answers.messages import (
    MESSAGE_EVENTS,
    AnthropicError,
    AnthropicMessage,
    MessageTokens,
)
from headrace_gateway.api.probes.answers.responses import (
    RESPONSE_EVENTS,
    ConversationObject,
    DeletedConversation,
    DeletedResponse,
    FunctionCallItem,
    FunctionOutputItem,
    InputTokens,
    ItemList,
    MessageItem,
    ReasoningItem,
    ResponseObject,
)
from headrace_gateway.api.probes.answers.stored import (
    AnthropicModel,
    AnthropicModels,
    BatchBody,
    BatchList,
    BatchObject,
    CohereError,
    DeletedFile,
    FileList,
    FileObject,
    HealthAnswer,
    ModelEntries,
    ModelEntry,
    OpenAIError,
    OpenApiDocument,
    TeiError,
    UsagePage,
    VersionAnswer,
)
from headrace_gateway.api.responses.wire.bodies import (
    ConversationBody,
    ConversationItemsBody,
    ConversationUpdateBody,
)

Kinds = tuple[type[BaseModel], ...]


@dataclass(frozen=True, slots=True)
class Answers:
    whole: Kinds = ()
    """One of these is the body."""
    events: Kinds = ()
    """One of these is each event's data."""


_ITEM = (MessageItem, ReasoningItem, FunctionCallItem, FunctionOutputItem)
_RESPONSE = Answers((ResponseObject,), RESPONSE_EVENTS)
_FAILED = (OpenAIError,)
ANSWERS: dict[str, Answers] = {
    "OpenAIService.ChatCompletions": Answers((ChatCompletion,), (ChatCompletionChunk, *_FAILED)),
    "OpenAIService.Completions": Answers((TextCompletion,), (TextCompletionChunk, *_FAILED)),
    "OpenAIService.Embeddings": Answers((EmbeddingList,)),
    "OpenAIService.Rerank": Answers((Ranking, TeiRanks)),
    "OpenAIService.RerankV2": Answers((CohereRanking,)),
    "OpenAIService.Score": Answers((ScoreList,)),
    "OpenAIService.Classify": Answers((ClassList,)),
    "OpenAIService.Pooling": Answers((PoolingList,)),
    "OpenAIService.CreateModeration": Answers((ModerationAnswer,)),
    "OpenAIService.Embed": Answers((TeiVectors,)),
    "OpenAIService.Predict": Answers((TeiLabels,)),
    "OpenAIService.Similarity": Answers((TeiSimilarities,)),
    "OpenAIService.Tokenize": Answers((TokenCount, TokenPieces)),
    "OpenAIService.Detokenize": Answers((Detokenized,)),
    "OpenAIService.ListModels": Answers((ModelEntries, AnthropicModels)),
    "OpenAIService.GetModel": Answers((ModelEntry, AnthropicModel)),
    "ResponsesService.CreateResponse": _RESPONSE,
    "ResponsesService.GetResponse": _RESPONSE,
    "ResponsesService.CancelResponse": Answers((ResponseObject,)),
    "ResponsesService.DeleteResponse": Answers((DeletedResponse,)),
    "ResponsesService.CountInputTokens": Answers((InputTokens,)),
    "ResponsesService.ListInputItems": Answers((ItemList,)),
    "ResponsesService.CreateConversation": Answers((ConversationObject,)),
    "ResponsesService.GetConversation": Answers((ConversationObject,)),
    "ResponsesService.UpdateConversation": Answers((ConversationObject,)),
    "ResponsesService.DeleteConversation": Answers((DeletedConversation,)),
    "ResponsesService.CreateConversationItems": Answers((ItemList,)),
    "ResponsesService.ListConversationItems": Answers((ItemList,)),
    "ResponsesService.GetConversationItem": Answers(_ITEM),
    "ResponsesService.DeleteConversationItem": Answers((ConversationObject,)),
    "AnthropicService.CreateMessage": Answers((AnthropicMessage,), MESSAGE_EVENTS),
    "AnthropicService.CountMessageTokens": Answers((MessageTokens,)),
    "FileService.UploadFile": Answers((FileObject,)),
    "FileService.ListFiles": Answers((FileList,)),
    "FileService.GetFile": Answers((FileObject,)),
    "FileService.DeleteFile": Answers((DeletedFile,)),
    "BatchService.CreateBatch": Answers((BatchObject,)),
    "BatchService.ListBatches": Answers((BatchList,)),
    "BatchService.GetBatch": Answers((BatchObject,)),
    "BatchService.CancelBatch": Answers((BatchObject,)),
    "OrganizationService.GetUsage": Answers((UsagePage,)),
    "OrganizationService.GetCosts": Answers((UsagePage,)),
    "ProbeService.GetHealth": Answers((HealthAnswer,)),
    "ProbeService.GetVersion": Answers((VersionAnswer,)),
    "ProbeService.GetOpenApi": Answers((OpenApiDocument,)),
}
"""By the call, without its package."""
BODIES: dict[str, type[BaseModel]] = {
    "ResponsesService.CreateConversation": ConversationBody,
    "ResponsesService.UpdateConversation": ConversationUpdateBody,
    "ResponsesService.CreateConversationItems": ConversationItemsBody,
    "BatchService.CreateBatch": BatchBody,
}
"""What reads the bodies of calls that are no endpoints of one body."""


def call_of(path: RestPath) -> str:
    """Return the name of a path's call in these tables."""
    return path.rpc.removeprefix("headrace.v1.")


def answers_of(path: RestPath) -> Answers:
    """Return what a path answers with; nothing, if it is described by its messages."""
    return ANSWERS.get(call_of(path), Answers())


def errors_of(path: RestPath) -> Kinds:
    """Return the errors of a path; none, if they are those of gRPC."""
    if path.path == COHERE_PATH:
        return (CohereError,)
    if path.path in TEI_PATHS:
        return (TeiError,)
    if path.path.startswith("/v2/"):
        return ()
    match call_of(path):
        case "AnthropicService.CreateMessage" | "AnthropicService.CountMessageTokens":
            return (AnthropicError,)
        case "OpenAIService.ListModels" | "OpenAIService.GetModel":
            return (OpenAIError, AnthropicError)
        case "OpenAIService.Rerank":
            return (OpenAIError, TeiError)
        case _:
            return (OpenAIError,)
