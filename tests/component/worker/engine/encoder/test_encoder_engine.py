"""Vectors from an engine equal the plain model's, whatever the company."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from headrace_worker.engine.base.interface import EngineFacts, NoFreeSlot, SequenceRefused
from headrace_worker.engine.encoder.batching import BatchMode
from headrace_worker.engine.encoder.encoder_engine import EncoderEngine
from headrace_worker.engine.encoder.encoder_runner import EncoderCheckFailed, EncoderModelRunner
from headrace_worker.engine.encoder.pooling import TextHead
from headrace_worker.engine.files.rope import fix_frequencies
from helpers.tiny_encoders import (
    CONTEXT_TOKENS,
    states_alone,
    tiny_encoder,
    token_input,
    vectors_of,
)
from helpers.tiny_tokenizers import word_pieces

VOCABULARY = word_pieces().get_vocab_size()
POISON = VOCABULARY - 1


def forward_of(model: Any, modes: tuple[str, ...] = ("mean",)) -> EncoderModelRunner:
    head = TextHead(modes, [])
    return EncoderModelRunner(
        model, head, output="last_hidden_state", pad_token_id=0, has_token_types=True
    )


def engine_of(
    model: Any,
    modes: tuple[str, ...] = ("mean",),
    *,
    batch_tokens: int = 200,
    batch_mode: BatchMode = BatchMode.PADDED,
) -> EncoderEngine:
    facts = EngineFacts(
        name="encoder",
        dtype="float32",
        max_slots=40,
        context_tokens=CONTEXT_TOKENS,
        vocabulary_size=VOCABULARY,
        eos_token_ids=(),
        weights_digest="w",
        batch_invariant=False,
        makes_vectors=True,
    )
    return EncoderEngine(
        forward_of(model, modes), facts, batch_tokens=batch_tokens, batch_mode=batch_mode
    )


@pytest.fixture(scope="module")
def bert() -> Any:
    return tiny_encoder()


ids = st.lists(st.integers(2, VOCABULARY - 1), min_size=1, max_size=CONTEXT_TOKENS)


@settings(max_examples=20, deadline=None)
@given(st.lists(ids, min_size=1, max_size=12), st.integers(1, 300))
def test_a_vector_is_the_plain_models_whatever_shares_its_pass(
    bert: Any, drawn: list[list[int]], batch_tokens: int
) -> None:
    inputs = [token_input(number, each) for number, each in enumerate(drawn)]
    vectors = vectors_of(engine_of(bert, batch_tokens=batch_tokens), inputs)
    for one in inputs:
        plain = states_alone(bert, one).mean(dim=0)
        torch.testing.assert_close(vectors[one.sequence_id], plain, atol=2e-5, rtol=1e-4)


def _weighted(states: Tensor) -> Tensor:
    weights = torch.arange(1, len(states) + 1)[:, None]
    return (states * weights).sum(dim=0) / weights.sum()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("cls", lambda states: states[0]),
        ("max", lambda states: states.max(dim=0).values),
        ("mean_sqrt_len_tokens", lambda states: states.sum(dim=0) / len(states) ** 0.5),
        ("weightedmean", _weighted),
        ("lasttoken", lambda states: states[-1]),
    ],
)
def test_every_way_of_pooling_leaves_the_padding_out(bert: Any, mode: str, expected: Any) -> None:
    inputs = [token_input(number, range(5, 9 + 2 * number)) for number in range(5)]
    vectors = vectors_of(engine_of(bert, (mode,)), inputs)
    for one in inputs:
        plain = expected(states_alone(bert, one))
        torch.testing.assert_close(vectors[one.sequence_id], plain, atol=2e-5, rtol=1e-4)


def test_several_ways_of_pooling_stand_side_by_side(bert: Any) -> None:
    one = token_input(0, [5, 6, 7])
    states = states_alone(bert, one)
    vector = vectors_of(engine_of(bert, ("cls", "mean")), [one])[0]
    torch.testing.assert_close(vector, torch.cat([states[0], states.mean(dim=0)]))


@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "modernbert", "qwen3"])
def test_families_take_padding_and_come_out_as_alone(model_type: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "roberta": {"max_position_embeddings": CONTEXT_TOKENS + 2, "pad_token_id": 1},
        "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
        "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
        "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    }
    model = tiny_encoder(model_type, **changes[model_type])
    batch_mode, dimensions = forward_of(model, ("lasttoken",)).batch_mode(
        VOCABULARY, CONTEXT_TOKENS
    )
    assert (batch_mode, dimensions) == (BatchMode.PADDED, 32)


class _Meddling(nn.Module):
    """A model whose every token hears of the whole row, padding included; or of all rows."""

    def __init__(self, model: Any, over: tuple[int, ...]) -> None:
        super().__init__()
        self._model, self._over = model, over
        self.dtype, self.config = model.dtype, model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor, return_dict: bool) -> Any:
        output = self._model(input_ids=input_ids, attention_mask=attention_mask)
        output.last_hidden_state += output.last_hidden_state.mean(dim=self._over, keepdim=True)
        return output


def test_the_batch_mode_of_a_model_is_found_by_probing(bert: Any) -> None:
    rows = forward_of(_Meddling(bert, (1,))).batch_mode(VOCABULARY, CONTEXT_TOKENS)
    assert rows == (BatchMode.SAME_LENGTH, 32)
    batch = forward_of(_Meddling(bert, (0, 1))).batch_mode(VOCABULARY, CONTEXT_TOKENS)
    assert batch == (BatchMode.SINGLE, 32)
    broken = tiny_encoder()
    broken.embeddings.word_embeddings.weight.data[:] = float("nan")
    with pytest.raises(EncoderCheckFailed, match="not all finite"):
        forward_of(broken).batch_mode(VOCABULARY, CONTEXT_TOKENS)


def test_frequencies_that_follow_the_longest_input_are_found_out_and_fixed() -> None:
    long = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4, 8, 3, 2],
        "original_max_position_embeddings": 24,
    }
    model = tiny_encoder("phi3", original_max_position_embeddings=24, rope_parameters=long)
    forward = forward_of(model)
    assert forward.batch_mode(VOCABULARY, CONTEXT_TOKENS)[0] is not BatchMode.PADDED
    fix_frequencies(model, CONTEXT_TOKENS)
    assert forward.batch_mode(VOCABULARY, CONTEXT_TOKENS)[0] is BatchMode.PADDED


@pytest.mark.parametrize("nan", [False, True], ids=["raises", "nan"])
def test_an_input_that_cannot_be_computed_fails_alone(nan: bool) -> None:
    model = tiny_encoder()

    def poison(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows = arguments[0] == POISON
        if rows.any() and not nan:
            raise RuntimeError("poisoned")
        return output.masked_fill(rows[..., None], float("nan"))

    model.embeddings.word_embeddings.register_forward_hook(poison)
    engine = engine_of(model)
    inputs = [token_input(number, [5, 6, 7, 8 + number]) for number in range(6)]
    for one in (*inputs, token_input(9, [5, POISON, 6])):
        engine.admit(one)
    output = engine.step()
    assert {number for number, _ in output.finished} == set(range(6))
    ((failed, fact),) = output.failed
    assert failed == 9
    assert ("not finite" if nan else "poisoned") in fact
    plain = states_alone(tiny_encoder(), inputs[3]).mean(dim=0)
    vector = torch.frombuffer(bytearray(output.vectors[3]), dtype=torch.float32)
    torch.testing.assert_close(vector, plain, atol=2e-5, rtol=1e-4)
    assert not engine.has_work


def test_what_does_not_fit_is_refused_and_holds_nothing(bert: Any) -> None:
    engine = engine_of(bert)
    for stray, fact in (
        ([], "no tokens"),
        ([5] * (CONTEXT_TOKENS + 1), f"do not fit a context of {CONTEXT_TOKENS}"),
        ([VOCABULARY], "outside the vocabulary"),
    ):
        with pytest.raises(SequenceRefused, match=fact):
            engine.admit(token_input(0, stray))
    engine.admit(token_input(0, [5] * CONTEXT_TOKENS))
    with pytest.raises(SequenceRefused, match="already held"):
        engine.admit(token_input(0, [5]))
    assert engine.statistics().running == 1


def test_a_full_engine_refuses_until_an_input_is_cancelled_or_done(bert: Any) -> None:
    engine = engine_of(bert)
    for number in range(40):
        engine.admit(token_input(number, [5, 6]))
    with pytest.raises(NoFreeSlot):
        engine.admit(token_input(40, [5, 6]))
    engine.cancel(3)
    engine.cancel(3)
    assert engine.park(4) == ()
    engine.admit(token_input(40, [5, 6]))
    vectors = vectors_of(engine, [])
    assert vectors.keys() == {*range(41)} - {3, 4}
    statistics = engine.statistics()
    assert (statistics.prompt_tokens, statistics.output_tokens) == (78, 0)
    assert (statistics.running, statistics.free_slots) == (0, 40)
