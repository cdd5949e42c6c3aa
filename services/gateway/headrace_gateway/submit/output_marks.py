"""Tells the record of a request where reasoning begins and ends, in tokens."""

from __future__ import annotations

from headrace.internal.v1.request_pb2 import Reasoning
from headrace_gateway.models.catalog import ServedModel
from headrace_gateway.parsers.prompts import TAIL_TOKENS, closes_reasoning, opens_reasoning
from headrace_gateway.parsers.registry import THINK, marks_of
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.request.generation_request import GenerationRequest


def add_marks(request: ValidRequest, requested: GenerationRequest, served: ServedModel) -> None:
    """Add to the record whether the prompt ends within reasoning, and where its grammar begins."""
    rendering, sampling, tokenizer = request.rendering, request.sampling, served.tokenizer
    if sampling.HasField("grammar"):
        sampling.grammar.mark_ids.extend(tokenizer.special_ids(marks_of(rendering)))
    marks = THINK.get(rendering.reasoning_parser)
    if marks is None:
        return
    tail = tokenizer.decode_whole(list(request.prompt_ids[-TAIL_TOKENS:]))
    opens = opens_reasoning(rendering.reasoning_parser, tail, requested.prompt)
    rendering.reasoning_open = opens
    budget = requested.reasoning.budget
    is_bound = sampling.HasField("grammar")
    if not (is_bound or budget is not None) or not request.card.capabilities.token_masks:
        return
    if not opens and closes_reasoning(rendering.reasoning_parser, tail, requested.prompt):
        return
    end_ids = tokenizer.token_run(marks.end)
    rule = Reasoning(
        begin_ids=() if opens else tokenizer.token_run(marks.begin),
        end_ids=end_ids,
        budget=budget,
        forced_ids=() if budget is None else end_ids,
    )
    # Why not with others: what ends the reasoning as well is a call, which may end the output.
    if is_bound and not marks.also_ends:
        rule.barred_ids.extend({*request.card.eos_token_ids, *sampling.stop_token_ids})
    sampling.reasoning.CopyFrom(rule)
