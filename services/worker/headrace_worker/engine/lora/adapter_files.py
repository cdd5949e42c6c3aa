"""Read an adapter's folder, as peft writes it: `adapter_config.json`, `adapter_model.safetensors`.

Settings that change the computation in an unsupported way are refused, never ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from headrace_worker.engine.base.interface import AdapterRefused

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_COPY = re.compile(r"base_model\.model\.(?P<module>.+)\.base_layer\.weight")
_NOT_APPLIED = (
    *("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters"),
    *("layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config"),
    *("kasa_config", "monteclora_config"),
)
"""Settings of peft that change more than a module's output by two small matrices."""


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """Added to a module's output for its input x: `x @ lora_a.T @ lora_b`, scale included."""

    lora_a: Tensor
    """`(rank, inputs)`."""
    lora_b: Tensor
    """`(rank, outputs)`."""

    @property
    def rank(self) -> int:
        return self.lora_a.shape[0]

    @property
    def bytes(self) -> int:
        return sum(half.numel() * half.element_size() for half in (self.lora_a, self.lora_b))


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """The contents of an adapter; not yet checked against a model."""

    digest: str
    """Of both files: equal for equal adapters."""
    modules: Mapping[str, LoraWeights]
    """By the module's path within the model; float32."""
    copies: Mapping[str, Tensor]
    """Copies of the model's own weights, by module: peft saves those of resized embeddings too."""


def read_adapter(folder: Path) -> AdapterFiles:
    """Read an adapter's folder.

    Raises:
        AdapterRefused: files are missing or damaged, or set what is not applied.
    """
    config_bytes, weights = _bytes(folder / CONFIG), _bytes(folder / WEIGHTS)
    config = _config(config_bytes)
    try:
        tensors = load(weights)
    except SafetensorError as error:
        raise AdapterRefused(f"{WEIGHTS} is no safetensors file: {error}") from error
    digest = sha256(config_bytes + weights).hexdigest()
    copies = {m["module"]: t for name, t in tensors.items() if (m := _COPY.fullmatch(name))}
    return AdapterFiles(f"sha256:{digest}", _modules(tensors, config), copies)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise AdapterRefused(f"{file.name} cannot be read: {error.strerror}") from error


def _config(octets: bytes) -> dict[str, Any]:
    try:
        config = json.loads(octets)
    except ValueError as error:
        raise AdapterRefused(f"{CONFIG} is no JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise AdapterRefused(f"{CONFIG} is not peft's of a LoRA adapter (peft_type LORA)")
    unsupported = [name for name in _NOT_APPLIED if config.get(name)]
    if config.get("bias", "none") != "none":
        unsupported.append("bias")
    if unsupported:
        raise AdapterRefused(f"{CONFIG} sets {', '.join(unsupported)}, which is not applied here")
    return config


def _modules(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, LoraWeights]:
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if _COPY.fullmatch(name):
            continue
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise AdapterRefused(f"tensor {name} is no lora_A or lora_B weight of a module")
        if not bool(tensor.isfinite().all()):
            raise AdapterRefused(f"tensor {name} has numbers that are not finite")
        halves.setdefault(match["module"], {})[match["half"]] = tensor
    if not halves:
        raise AdapterRefused(f"{WEIGHTS} has no tensors")
    return {module: _low_rank(module, pair, config) for module, pair in halves.items()}


def _low_rank(module: str, pair: Mapping[str, Tensor], config: Mapping[str, Any]) -> LoraWeights:
    if set(pair) != {"A", "B"}:
        raise AdapterRefused(f"module {module} has lora_{next(iter(pair))} alone")
    down, up = pair["A"], pair["B"]
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
        raise AdapterRefused(f"lora_A and lora_B of module {module} do not match: {shapes}")
    try:
        rank = int(_of_module(module, config, "rank_pattern", "r"))
        alpha = float(_of_module(module, config, "alpha_pattern", "lora_alpha"))
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise AdapterRefused(f"{CONFIG} gives no rank or alpha for module {module}") from error
    if rank != down.shape[0]:
        fact = f"rank {down.shape[0]}, where {CONFIG} has {rank}"
        raise AdapterRefused(f"module {module} has {fact}")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LoraWeights(down.float(), up.float().T.mul(scale).contiguous())


def _of_module(module: str, config: Mapping[str, Any], pattern: str, default: str) -> Any:
    """Return peft's choice: the value of the first pattern that matches the module's path, else the
    adapter's own."""
    for key, value in (config.get(pattern) or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return config[default]
