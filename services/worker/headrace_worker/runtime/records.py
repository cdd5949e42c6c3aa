"""Converts request records to engine sequences."""

from __future__ import annotations

from typing import Any

from headrace.internal.v1 import request_pb2 as pb
from headrace.internal.v1.request_pb2 import RequestRecord, Sampling
from headrace.sampling import PARAMETERS
from headrace.v1.common_pb2 import Priority
from headrace_worker.engine.base.interface import (
    EngineFacts,
    Grammar,
    GrammarKind,
    ReasoningRule,
    SamplingParameters,
    Sequence,
)

SEED_RANGE = 1 << 64


def unfinished(record: RequestRecord) -> list[tuple[int, list[int]]]:
    """Return the choices to run, each with the output of earlier attempts."""
    progress = {p.choice: p for p in record.progress}
    return [
        (choice, list(progress[choice].output_ids) if choice in progress else [])
        for choice in range(max(1, record.n))
        if choice not in progress or not progress[choice].finish_reason
    ]


def prompt_tokens(record: RequestRecord) -> int:
    """Return the number of tokens of the prompt, or of all inputs."""
    return len(record.prompt_ids) + sum(len(each.token_ids) for each in record.inputs)


def task_mismatch(record: RequestRecord, facts: EngineFacts) -> str | None:
    """Return why this engine cannot perform the request's task; None if it can."""
    if not facts.makes_vectors:
        return "it has inputs for vectors, and this engine makes tokens" if record.inputs else None
    if len(record.inputs) != record.n:
        return f"it has {len(record.inputs)} inputs for {record.n} vectors"
    return None


def prompts_of(record: RequestRecord) -> list[tuple[tuple[int, ...], int]]:
    """Return the prompt of each choice: token ids, and where the second text of a pair begins."""
    if record.inputs:
        return [(tuple(each.token_ids), each.second_begins) for each in record.inputs]
    return [(tuple(record.prompt_ids), 0)] * max(1, record.n)


def sequence_of(
    record: RequestRecord,
    prompt: tuple[tuple[int, ...], int],
    choice: int,
    output_ids: list[int],
    *,
    sequence_id: int,
) -> Sequence:
    sampling = record.sampling
    return Sequence(
        sequence_id=sequence_id,
        prompt_ids=prompt[0],
        second_begins=prompt[1],
        output_ids=tuple(output_ids),
        parameters=SamplingParameters(
            max_tokens=sampling.max_tokens,
            **{name: _number(sampling, name) for name in PARAMETERS},
            logit_bias=dict(sampling.logit_bias),
            stop_token_ids=frozenset(sampling.stop_token_ids),
            ignore_eos=sampling.ignore_eos,
            logprobs=sampling.logprobs if sampling.HasField("logprobs") else None,
            prompt_logprobs=(
                sampling.prompt_logprobs if sampling.HasField("prompt_logprobs") else None
            ),
            min_tokens=sampling.min_tokens,
            bad_words=tuple(tuple(run.token_ids) for run in sampling.bad_words),
            allowed_token_ids=frozenset(sampling.allowed_token_ids),
        ),
        seed=(record.seed + choice) % SEED_RANGE,
        priority=record.priority or Priority.PRIORITY_STANDARD,
        grammar=_grammar(sampling.grammar) if sampling.HasField("grammar") else None,
        reasoning=_reasoning(sampling.reasoning) if sampling.HasField("reasoning") else None,
        adapter=record.adapter_digest,
        cache_salt=record.cache_salt,
    )


def masks_of(sampling: Sampling) -> list[str]:
    """Return the names of the set fields that forbid output tokens."""
    names = ("allowed_token_ids", "bad_words", "min_tokens")
    budget = ["reasoning_budget"] if sampling.HasField("reasoning") else []
    return [name for name in names if getattr(sampling, name)] + budget


def _grammar(grammar: pb.Grammar) -> Grammar:
    structure, marks = grammar.structure, frozenset(grammar.mark_ids)
    form = structure.WhichOneof("form")
    if form is None or form == "json_object":
        return Grammar(GrammarKind.JSON_OBJECT, mark_ids=marks)
    return Grammar(GrammarKind(form), getattr(structure, form), marks)


def _reasoning(rule: pb.Reasoning) -> ReasoningRule:
    return ReasoningRule(
        end_ids=tuple(rule.end_ids),
        begin_ids=tuple(rule.begin_ids),
        budget=rule.budget if rule.HasField("budget") else None,
        forced_ids=tuple(rule.forced_ids),
        barred_ids=frozenset(rule.barred_ids),
    )


def _number(sampling: Sampling, name: str) -> Any:
    """Return the value; the neutral one if the gateway does not know the parameter yet."""
    if sampling.DESCRIPTOR.fields_by_name[name].has_presence and not sampling.HasField(name):  # type: ignore[arg-type]
        return PARAMETERS[name].neutral
    return getattr(sampling, name)
