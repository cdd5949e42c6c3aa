"""Begins a run with the weights of a model folder whose feed-forward layers may be wider."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def copy_tokenizer(start: Path, out: Path) -> None:
    """The weights know tokens by these numbers."""
    for name in TOKENIZER_FILES:
        shutil.copyfile(start / name, out / name)


def load_pruned(model: Any, start: Path) -> None:
    """Fill `model` with the weights in `start`, less the feed-forward neurons that weigh least.

    A neuron weighs as much as the product of the norms of its three rows: what it can add to the
    stream, whatever the input. On weights of one training run that is nearly as good a choice as
    by activations on a sample, and needs no sample.
    """
    old: Any = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    keep = model.config.intermediate_size
    for layer in old.model.layers:
        mlp = layer.mlp
        gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
        weight = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
        chosen = weight.topk(keep).indices.sort().values
        mlp.gate_proj.weight = torch.nn.Parameter(gate[chosen].detach().clone())
        mlp.up_proj.weight = torch.nn.Parameter(up[chosen].detach().clone())
        mlp.down_proj.weight = torch.nn.Parameter(down[:, chosen].detach().clone())
    model.load_state_dict(old.state_dict())
