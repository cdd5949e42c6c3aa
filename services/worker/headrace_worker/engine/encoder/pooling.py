"""Pool a model's outputs into one vector per text, as in sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

PoolFunction = Callable[[Tensor, Tensor], Tensor]
"""From outputs `(rows, tokens, width)` and mask `(rows, tokens)`, padded on the right, to `(rows,
width)`."""


def _cls(outputs: Tensor, mask: Tensor) -> Tensor:
    return outputs[:, 0]


def _max(outputs: Tensor, mask: Tensor) -> Tensor:
    return outputs.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)


def _mean(outputs: Tensor, mask: Tensor) -> Tensor:
    return _sum(outputs, mask) / mask.sum(dim=1, keepdim=True)


def _mean_sqrt_len(outputs: Tensor, mask: Tensor) -> Tensor:
    return _sum(outputs, mask) / mask.sum(dim=1, keepdim=True).sqrt()


def _weighted_mean(outputs: Tensor, mask: Tensor) -> Tensor:
    weights = torch.arange(1, mask.shape[1] + 1, device=mask.device) * mask
    return _sum(outputs, weights) / weights.sum(dim=1, keepdim=True)


def _last_token(outputs: Tensor, mask: Tensor) -> Tensor:
    last = mask.sum(dim=1) - 1
    return outputs[torch.arange(len(outputs), device=outputs.device), last]


def _sum(outputs: Tensor, weights: Tensor) -> Tensor:
    # Why float32: long texts add up to more than half precision tells apart.
    return (outputs.float() * weights[..., None]).sum(dim=1)


POOLS: dict[str, PoolFunction] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


class TextHead(nn.Module):
    """Pools, concatenates several modes, then applies the modules after pooling."""

    def __init__(self, modes: Sequence[str], layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self._pools = [POOLS[mode] for mode in modes]
        self.layers = nn.Sequential(*layers)

    def forward(self, outputs: Tensor, mask: Tensor) -> Tensor:
        pooled = [pool(outputs, mask).float() for pool in self._pools]
        return cast(Tensor, self.layers(torch.cat(pooled, dim=-1)))


class Normalize(nn.Module):
    """Scales vectors to length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1)


class ScoreHead(nn.Module):
    """Turns classification logits `(rows, labels)` into scores; one label is one score a row."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self._activation = activation

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return cast(Tensor, self._activation(logits.float()))
