"""Random encoders small enough for a test, in folders as they are published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from headrace_worker.engine.base.interface import Engine, SamplingParameters
from headrace_worker.engine.base.interface import Sequence as Input
from helpers.tiny_tokenizers import SPECIALS, word_pieces

WIDTH = 32
CONTEXT_TOKENS = 64

_SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT_TOKENS,
    "pad_token_id": 0,
}


def tiny_encoder(
    model_type: str = "bert", *, scores: bool = False, labels: Sequence[str] = (), **changes: Any
) -> Any:
    """Equal on every call; its matrices are sharpened, so that texts differ.

    `labels`: of a model that classifies.
    """
    torch.set_num_threads(1)
    vocab_size = word_pieces().get_vocab_size()
    if scores:
        changes = {"num_labels": 1, **changes}
    if labels:
        by_label = {label: index for index, label in enumerate(labels)}
        changes = {"id2label": dict(enumerate(labels)), "label2id": by_label, **changes}
    config = AutoConfig.for_model(model_type, **{**_SHAPE, "vocab_size": vocab_size, **changes})
    kind: Any = AutoModelForSequenceClassification if scores or labels else AutoModel
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = kind.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
    return model.train(False)


def save_encoder(folder: Path, model: PreTrainedModel) -> Path:
    """The model and its tokenizer."""
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs
        tokenizer_object=word_pieces(),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=CONTEXT_TOKENS,
        **{f"{name.strip('[]').lower()}_token": name for name in SPECIALS},
    )
    tokenizer.save_pretrained(folder)
    return folder


def save_modules(
    folder: Path,
    *,
    pooling: dict[str, Any] | None = None,
    dense: Tensor | None = None,
    normalise: bool = False,
    **own: Any,
) -> None:
    """What sentence-transformers writes beside a model; `own` is its configuration."""
    kinds = [("Transformer", "")]
    if pooling is not None:
        kinds.append(("Pooling", "1_Pooling"))
        _write(folder / "1_Pooling" / "config.json", pooling)
    if dense is not None:
        kinds.append(("Dense", "2_Dense"))
        rows, columns = dense.shape
        config = {"in_features": columns, "out_features": rows, "bias": False}
        activation = {"activation_function": "torch.nn.modules.activation.Tanh"}
        _write(folder / "2_Dense" / "config.json", config | activation)
        save_file({"linear.weight": dense}, folder / "2_Dense" / "model.safetensors")
    if normalise:
        kinds.append(("Normalize", "3_Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "config_sentence_transformers.json", own)


def _write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def text_input(number: int, text: str, second: str | None = None) -> Input:
    found = word_pieces().encode(text, second)
    second_begins = found.type_ids.index(1) if 1 in found.type_ids else 0
    return token_input(number, found.ids, second_begins=second_begins)


def token_input(number: int, ids: Sequence[int], *, second_begins: int = 0) -> Input:
    nothing = SamplingParameters(max_tokens=0)
    return Input(number, tuple(ids), (), nothing, seed=0, second_begins=second_begins)


def states_alone(model: Any, one: Input) -> Tensor:
    """The plain model's last states of one input `(tokens, width)`, without any padding."""
    with torch.inference_mode():
        states: Tensor = model(input_ids=torch.tensor([one.prompt_ids])).last_hidden_state[0]
    return states


def vectors_of(engine: Engine, inputs: Sequence[Input]) -> dict[int, Tensor]:
    """Step until nothing is left; what became of each, by its number."""
    for one in inputs:
        engine.admit(one)
    vectors: dict[int, Tensor] = {}
    while engine.has_work:
        output = engine.step()
        engine.check_integrity()
        assert output.failed == []
        assert output.vectors.keys() == {number for number, _ in output.finished}
        for number, vector in output.vectors.items():
            assert number not in vectors
            vectors[number] = torch.frombuffer(bytearray(vector), dtype=torch.float32)
    return vectors


class LengthsForward:
    """Instead of a model: a vector says how long its input is."""

    STUCK = 99
    """An input with this token cannot be computed."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions

    def run(self, rows: Sequence[Input]) -> Tensor:
        if any(self.STUCK in row.prompt_ids for row in rows):
            raise RuntimeError("stuck")
        lengths = torch.tensor([float(len(row.prompt_ids)) for row in rows])
        return lengths[:, None].repeat(1, self._dimensions)


def length_of(vector: bytes) -> int:
    """What `LengthsForward` says in it."""
    values = torch.frombuffer(bytearray(vector), dtype=torch.float32)
    assert (values == values[0]).all()
    return int(values[0])
