"""Folders of sentence-transformers and of cross-encoders, and what their vectors are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.interface import Sequence
from headrace_worker.engine.base.loaded_model import (
    LoadedModel,
    LoadFailed,
    ModelLoadFailed,
    VectorTask,
)
from headrace_worker.engine.encoder.encoder_loader import load_encoder
from headrace_worker.engine.files.sentence_config import vector_task
from headrace_worker.serving.models import load_model
from helpers.tiny_encoders import (
    CONTEXT_TOKENS,
    save_encoder,
    save_modules,
    states_alone,
    text_input,
    tiny_encoder,
    vectors_of,
)

TEXTS = ("the river", "the mill and the wheel", "an old stone")
LABELS = ("calm", "wild", "dry")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_encoder(tmp_path / "model", tiny_encoder())


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    return save_encoder(tmp_path / "judge", tiny_encoder(scores=True))


def loaded(folder: Path, **settings: Any) -> LoadedModel:
    task = vector_task(folder)
    assert task is not None
    return load_encoder(
        WorkerSettings.model_validate({"model_source": str(folder), "threads": 1} | settings), task
    )


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def require_vectors(model: LoadedModel, expected: dict[int, torch.Tensor]) -> None:
    inputs = [text_input(number, text) for number, text in enumerate(TEXTS)]
    found = vectors_of(model.engine, inputs)
    for number, vector in found.items():
        torch.testing.assert_close(vector, expected[number], atol=2e-5, rtol=1e-4)


def means() -> dict[int, torch.Tensor]:
    model = tiny_encoder()
    return {
        number: states_alone(model, text_input(number, text)).mean(dim=0)
        for number, text in enumerate(TEXTS)
    }


def test_a_bare_encoder_means_its_tokens(folder: Path) -> None:
    model = loaded(folder)
    assert model.vectors is not None
    assert (model.vectors.task, model.vectors.dimensions) == (VectorTask.EMBED, 32)
    assert not model.vectors.normalised
    facts = model.engine.facts
    assert (facts.name, facts.makes_vectors, facts.batch_invariant) == ("encoder", True, False)
    assert (facts.max_slots, facts.context_tokens) == (256, CONTEXT_TOKENS)
    tokenizer = Tokenizer.from_str(model.tokenizer.tokenizer_json.decode())
    assert tokenizer.encode(TEXTS[0]).ids == list(text_input(0, TEXTS[0]).prompt_ids)
    require_vectors(model, means())


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_mean_tokens": True}, {"pooling_mode": "mean"}], ids=["old", "new"]
)
def test_the_modules_of_a_folder_are_applied_in_turn(
    folder: Path, pooling: dict[str, object]
) -> None:
    dense = torch.linspace(-1, 1, 8 * 32).reshape(8, 32)
    prompts = {"query": "query: ", "document": ""}
    save_modules(
        folder,
        pooling=pooling,
        dense=dense,
        normalise=True,
        prompts=prompts,
        default_prompt_name="query",
    )
    model = loaded(folder)
    assert model.vectors is not None
    assert (model.vectors.dimensions, model.vectors.normalised) == (8, True)
    assert (model.vectors.prompts, model.vectors.default_prompt) == ({"query": "query: "}, "query")
    rest = {number: torch.tanh(dense @ mean) for number, mean in means().items()}
    require_vectors(model, {number: each / each.norm() for number, each in rest.items()})


def test_the_first_token_is_pooled_where_the_folder_configures_it(folder: Path) -> None:
    save_modules(folder, pooling={"pooling_mode_cls_token": True})
    plain = tiny_encoder()
    inputs = enumerate(TEXTS)
    require_vectors(
        loaded(folder), {n: states_alone(plain, text_input(n, t))[0] for n, t in inputs}
    )


def test_what_shapes_a_vector_is_in_the_digest(folder: Path) -> None:
    digests = {loaded(folder).engine.facts.weights_digest}
    for changes in (
        {"pooling": {"pooling_mode": "cls"}},
        {"pooling": {"pooling_mode": "max"}},
        {"pooling": {"pooling_mode": "max"}, "normalise": True},
        {"pooling": {"pooling_mode": "max"}, "dense": torch.eye(32)},
        {"pooling": {"pooling_mode": "max"}, "dense": torch.eye(32) * 2},
    ):
        save_modules(folder, **changes)
        digests.add(loaded(folder).engine.facts.weights_digest)
    assert len(digests) == 6
    assert loaded(folder).engine.facts.weights_digest in digests


def test_the_shortest_of_the_lengths_counts(folder: Path) -> None:
    assert loaded(folder, context_tokens=32).engine.facts.context_tokens == 32
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
    assert loaded(folder).engine.facts.context_tokens == 24


def test_positions_up_to_the_padding_index_are_not_part_of_the_context(tmp_path: Path) -> None:
    model = tiny_encoder("roberta", max_position_embeddings=40, pad_token_id=1)
    assert loaded(save_encoder(tmp_path / "r", model)).engine.facts.context_tokens == 38


def test_texts_are_lowercased_where_the_folder_configures_it(folder: Path) -> None:
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    tokenizer = Tokenizer.from_str(loaded(folder).tokenizer.tokenizer_json.decode())
    assert tokenizer.encode("The RIVER").ids == tokenizer.encode("the river").ids


@pytest.mark.parametrize(
    ("activation", "apply"),
    [
        (None, torch.sigmoid),
        ("torch.nn.modules.activation.Sigmoid", torch.sigmoid),
        ("torch.nn.modules.linear.Identity", lambda logits: logits),
    ],
)
def test_a_cross_encoder_reads_both_texts_and_scores(
    judge: Path, activation: str | None, apply: Any
) -> None:
    if activation is not None:
        edit(judge / "config.json", sentence_transformers={"activation_fn": activation})
    model = loaded(judge)
    assert model.vectors is not None
    assert (model.vectors.task, model.vectors.dimensions) == (VectorTask.SCORE, 1)
    pairs = [text_input(number, "the river", text) for number, text in enumerate(TEXTS)]
    for number, score in vectors_of(model.engine, pairs).items():
        plain = apply(_logits_alone(pairs[number]))
        torch.testing.assert_close(score, plain, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("multi", [False, True])
def test_a_classifier_gives_the_logits_of_its_labels(tmp_path: Path, multi: bool) -> None:
    kind: Any = {"problem_type": "multi_label_classification"} if multi else {}
    plain = tiny_encoder(labels=LABELS, **kind)
    model = loaded(save_encoder(tmp_path, plain))
    assert model.vectors is not None
    assert (model.vectors.task, model.vectors.dimensions) == (VectorTask.CLASSIFY, len(LABELS))
    assert (model.vectors.labels, model.vectors.multi_label) == (LABELS, multi)
    inputs = [text_input(number, text) for number, text in enumerate(TEXTS)]
    for number, logits in vectors_of(model.engine, inputs).items():
        with torch.inference_mode():
            alone = plain(input_ids=torch.tensor([inputs[number].prompt_ids])).logits[0]
        torch.testing.assert_close(logits, alone, atol=2e-5, rtol=1e-4)


def _logits_alone(pair: Sequence) -> torch.Tensor:
    length, begins = len(pair.prompt_ids), pair.second_begins
    assert 0 < begins < length
    types = torch.tensor([[0] * begins + [1] * (length - begins)])
    with torch.inference_mode():
        model = tiny_encoder(scores=True)
        logits: torch.Tensor = model(
            input_ids=torch.tensor([pair.prompt_ids]), token_type_ids=types
        ).logits[0]
    return logits


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertModel", VectorTask.EMBED),
        ("BertForSequenceClassification", VectorTask.CLASSIFY),
        ("LlamaForCausalLM", None),
        ("GPT2LMHeadModel", None),
        ("BertForMaskedLM", None),
    ],
)
def test_the_task_of_a_model_follows_from_its_files(
    folder: Path, architecture: str, task: VectorTask | None
) -> None:
    edit(folder / "config.json", architectures=[architecture])
    assert vector_task(folder) is task
    save_modules(folder, pooling={"pooling_mode": "mean"})
    assert vector_task(folder) is VectorTask.EMBED


def test_settings_choose_the_loader(folder: Path) -> None:
    def loaded_with(**fields: object) -> LoadedModel:
        source = {"model_source": str(folder), "threads": 1}
        return load_model(WorkerSettings.model_validate(source | fields))

    assert loaded_with(max_slots=3, encoder_pass_tokens=77).engine.facts.max_slots == 3
    with pytest.raises(ModelLoadFailed, match="not a causal language model"):
        loaded_with(task="generate")
    with pytest.raises(ModelLoadFailed, match="classes"):
        loaded_with(task="score")
    with pytest.raises(ModelLoadFailed, match="it is to embed, without adapters"):
        loaded_with(adapters_dir=str(folder))


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"pooling": {"pooling_mode": "median"}}, "pooling by median is not served"),
        ({"pooling": {"pooling_mode": "mean", "include_prompt": False}}, "include_prompt"),
    ],
)
def test_modules_that_are_not_served_are_named(
    folder: Path, changes: dict[str, Any], fact: str
) -> None:
    save_modules(folder, **changes)
    with pytest.raises(LoadFailed, match=fact):
        loaded(folder)


def test_what_cannot_make_vectors_is_refused_with_the_reason(folder: Path, judge: Path) -> None:
    edit(judge / "config.json", sentence_transformers={"activation_fn": "mine.Own"})
    with pytest.raises(LoadFailed, match=r"activation mine\.Own is none of"):
        loaded(judge)
    save_modules(folder, pooling={"pooling_mode": "mean"}, dense=torch.eye(32))
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(LoadFailed, match="2_Dense/ has no safetensors"):
        loaded(folder)
    edit(folder / "config.json", model_type="t5")
    with pytest.raises(LoadFailed, match=r"its config\.json: .*classifier_dropout"):
        loaded(folder)
    (folder / "config.json").write_text('{"model_type": "t5", "architectures": ["T5Model"]}')
    with pytest.raises(LoadFailed, match="an encoder and a decoder"):
        loaded(folder)
