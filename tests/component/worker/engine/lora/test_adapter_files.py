"""What is taken of an adapter's folder as peft takes it, and what is refused, never passed over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from headrace_worker.engine.base.interface import AdapterRefused
from headrace_worker.engine.lora.adapter_files import CONFIG, WEIGHTS
from helpers.random_adapters import merged, write_adapter
from helpers.running_engine import GREEDY, alone, sequence
from helpers.tiny_models import generated, packed, random_model

BOUNDS = {"adapters_dir": Path("adapters"), "max_adapters": 3, "max_adapter_rank": 8}

CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"use_dora": True}, "sets use_dora, which is not applied here"),
    ({"bias": "lora_only"}, "sets bias, "),
    ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
    ({"peft_type": "IA3"}, "is not peft's of a LoRA adapter"),
    ({"r": 5}, "has rank 4, where adapter_config.json has 5"),
    ({"lora_alpha": None}, "gives no rank or alpha for module model.layers."),
    ({"rank_pattern": {"q_proj": 3}}, "q_proj has rank 4, where adapter_config.json has 3"),
]


@pytest.mark.parametrize(("changes", "fact"), CONFIGS)
def test_what_is_not_applied_is_refused_by_name(
    changes: dict[str, Any], fact: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path, random_model("llama"), number=1)
    config = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps(config))
    assert fact in refusal(folder)


def refusal(folder: Path) -> str:
    with pytest.raises(AdapterRefused) as caught:
        packed(random_model("llama"), **BOUNDS).adapters.load(folder)
    return str(caught.value)


def test_files_that_are_missing_or_damaged_are_refused_with_the_fact(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "adapter_config.json cannot be read: No such file or directory"
    folder = write_adapter(tmp_path / "a", random_model("llama"), number=1)
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    assert "adapter_model.safetensors is no safetensors file" in refusal(folder)
    (folder / CONFIG).write_text("{")
    assert "adapter_config.json is no JSON" in refusal(folder)


def test_an_adapter_of_another_model_is_refused_with_the_module(tmp_path: Path) -> None:
    wider = random_model("llama", intermediate_size=128)
    folder = write_adapter(tmp_path / "a", wider, number=1, target_modules=["up_proj"])
    assert "_proj is 64 to 128, where the model's is 64 to 96" in refusal(folder)
    deeper = write_adapter(tmp_path / "b", random_model("llama", num_hidden_layers=3), number=1)
    assert "it changes model.layers.2." in refusal(deeper)
    large = write_adapter(tmp_path / "c", random_model("llama"), number=1, r=16)
    assert refusal(large) == "its rank 16 is over 8"


@pytest.mark.parametrize(
    ("name", "tensor", "fact"),
    [
        (
            "base_model.model.model.embed_tokens.lora_embedding_A",
            torch.zeros(4, 300),
            "is no lora_A",
        ),
        ("base_model.model.lm_head.lora_A.weight", torch.zeros(4, 64), "has lora_A alone"),
        ("base_model.model.lm_head.lora_A.weight", torch.full((4, 64), torch.nan), "not finite"),
    ],
)
def test_tensors_that_are_no_change_to_a_layer_are_refused(
    name: str, tensor: Tensor, fact: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path, random_model("llama"), number=1)
    save_file(load_file(folder / WEIGHTS) | {name: tensor}, folder / WEIGHTS)
    assert fact in refusal(folder)


def test_ranks_and_scales_by_pattern_are_those_that_peft_takes(tmp_path: Path) -> None:
    folder = write_adapter(
        tmp_path,
        random_model("llama"),
        number=1,
        rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 7},
        alpha_pattern={"self_attn.v_proj": 1, "up_proj": 30},
    )
    engine = packed(random_model("llama"), **BOUNDS)
    fitted = engine.adapters.load(folder)
    engine.adapters.add(fitted)
    one = replace(sequence(1, replace(GREEDY, ignore_eos=True)), adapter=fitted.digest)
    assert alone(engine, one) == generated(
        merged(random_model("llama"), folder), one.prompt_ids, 24
    )
