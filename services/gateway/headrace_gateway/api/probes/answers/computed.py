"""Vectors, ranks, scores, classes, tokens, in the forms of OpenAI, vLLM, Cohere and TEI."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, RootModel

Vector = list[float] | str
"""Numbers, or base64 of them."""


class PromptUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class PoolingUsage(PromptUsage):
    completion_tokens: int


class EmbeddingEntry(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: Vector


class EmbeddingList(BaseModel):
    object: Literal["list"]
    data: list[EmbeddingEntry]
    model: str
    usage: PromptUsage


class RankedText(BaseModel):
    text: str


class RankedDocument(BaseModel):
    index: int
    relevance_score: float
    document: RankedText | None = None


class Ranking(BaseModel):
    id: str
    model: str
    results: list[RankedDocument]
    usage: PromptUsage


class TeiRank(BaseModel):
    index: int
    score: float
    text: str | None = None


class TeiRanks(RootModel[list[TeiRank]]):
    pass


class CohereVersion(BaseModel):
    version: str
    is_experimental: bool


class CohereUnits(BaseModel):
    search_units: int


class CohereTokens(BaseModel):
    input_tokens: int


class CohereMeta(BaseModel):
    api_version: CohereVersion
    billed_units: CohereUnits
    tokens: CohereTokens


class CohereRanking(BaseModel):
    id: str
    results: list[RankedDocument]
    meta: CohereMeta


class _VllmList(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    usage: PoolingUsage


class ScoreEntry(BaseModel):
    index: int
    object: Literal["score"]
    score: float


class ScoreList(_VllmList):
    data: list[ScoreEntry]


class ClassEntry(BaseModel):
    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassList(_VllmList):
    data: list[ClassEntry]


class PoolingEntry(BaseModel):
    index: int
    object: Literal["pooling"]
    data: Vector


class PoolingList(_VllmList):
    data: list[PoolingEntry]


class ModerationResult(BaseModel):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationAnswer(BaseModel):
    id: str
    model: str
    results: list[ModerationResult]


class TeiVectors(RootModel[list[list[float]]]):
    pass


class TeiSimilarities(RootModel[list[float]]):
    pass


class TeiLabel(BaseModel):
    score: float
    label: str


class TeiLabels(RootModel[list[TeiLabel] | list[list[TeiLabel]]]):
    pass


class TokenCount(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class TokenPiece(BaseModel):
    id: int
    piece: str | list[int]


class TokenPieces(BaseModel):
    tokens: list[int] | list[TokenPiece]


class Detokenized(BaseModel):
    prompt: str
    content: str
