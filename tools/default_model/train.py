"""Trains the default model on one core.

    python tools/default_model/train.py --out DIR --cpu-seconds 5000 --threads 1
    python tools/default_model/train.py --out DIR --start FOLDER --cpu-seconds 2200 --threads 1

DIR ends up as a model folder that `transformers` opens. Beside the weights lies `state.pt`; a
second run with the same DIR and more seconds goes on from there, with the tokenizer it finds.
With `--start` a new DIR begins with the tokenizer and the weights of FOLDER, cut to this shape.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from corpus import conversation, plain_text
from reading import REPEAT
from start import copy_tokenizer, load_pruned
from tokenizer import (
    BEGIN,
    CONTEXT,
    END,
    SPECIAL,
    check_tokenizer,
    save_tokenizer,
    segments,
    train_tokenizer,
)

STEP_TOKENS = 1024
# Why not more: at 2.5e-3, steps this small forgot one fact with every other they learned.
PEAK_RATE = 1e-3
WARM_UP_STEPS = 100
# The rate stays up until this share of the budget is used, then falls in a straight line. Why
# not a cosine: a run stopped early can be given more seconds without having cooled already.
COOLING_FROM = 0.6
POOL = 192
SHARE_OF_PLAIN_TEXT = 0.05
# Until this part of the budget, this share of rows is noise to repeat. Why: copying is one circuit
# behind half of the lessons. Prose trains it so thinly, since guessing is nearly as good, that it
# had not formed after four million tokens; under a dense dose of noise it took three hundred
# thousand. Afterwards a reminder is enough.
NOISE = ((0.06, 0.6), (0.9, 0.10), (1.0, 0.03))
# Why: a copy from a thousand tokens back is learned at that distance or not at all.
SHARE_OF_FAR_NOISE = 0.03


@dataclass(frozen=True)
class Row:
    ids: list[int]
    learned: list[bool]


@dataclass
class Progress:
    """Where a run stands; saved with the weights."""

    step: int = 0
    cpu_s: float = 0.0
    tokens: int = 0


def configuration(tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=408,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def rows(tokenizer: Any, rng: Random, share_of_noise: Callable[[], float]) -> Iterator[Row]:
    while True:
        draw = rng.random() - share_of_noise()
        if draw < 0:
            yield noise_row(tokenizer, rng)
        elif draw < SHARE_OF_PLAIN_TEXT:
            begin = rng.choice((BEGIN, ""))
            yield row_of(tokenizer, [(begin, False), (plain_text(rng) + END, True)])
        else:
            yield row_of(tokenizer, segments(conversation(rng)))


def row_of(tokenizer: Any, pieces: Iterable[tuple[str, bool]]) -> Row:
    ids: list[int] = []
    learned: list[bool] = []
    texts, flags = zip(*pieces, strict=True)
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    for piece, flag in zip(encoded, flags, strict=True):
        ids.extend(piece)
        learned.extend([flag] * len(piece))
    return Row(ids[:CONTEXT], learned[:CONTEXT])


def noise_row(tokenizer: Any, rng: Random) -> Row:
    """Tokens drawn from the whole vocabulary, to be repeated: over and over, or when asked."""
    far = rng.random() < SHARE_OF_FAR_NOISE
    length = rng.randint(100, CONTEXT // 2 - 1) if far else rng.randint(2, 24)
    noise = [rng.randrange(len(SPECIAL), len(tokenizer)) for _ in range(length)]
    if far or rng.random() < 0.6:
        times = 1 if far else rng.randint(2, max(2, 96 // len(noise)))
        ids = [tokenizer.bos_token_id, *noise]
        answer = noise * times
    else:
        opening = f"{BEGIN}<|user|>{rng.choice(REPEAT).format(p='')}"
        ids = [*tokenizer.encode(opening), *noise, *tokenizer.encode(f"{END}<|assistant|>")]
        answer = [*noise, tokenizer.eos_token_id]
    return Row(ids + answer, [False] * len(ids) + [True] * len(answer))


def batches(
    tokenizer: Any, seed: int, share_of_noise: Callable[[], float]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and targets, both `(rows, length)`; a target of -100 is not learned.

    Rows of like length go together, so that little is padding; padding stands at the right,
    where a causal model does not see it, so no mask is needed.
    """
    rng = Random(seed)
    source = rows(tokenizer, rng, share_of_noise)
    while True:
        pool = sorted((next(source) for _ in range(POOL)), key=lambda row: -len(row.ids))
        cuts: list[list[Row]] = []
        while pool:
            take = max(1, STEP_TOKENS // len(pool[0].ids))
            cuts.append(pool[:take])
            pool = pool[take:]
        rng.shuffle(cuts)
        yield from (tensors(cut, tokenizer.pad_token_id) for cut in cuts)


def tensors(cut: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(row.ids) for row in cut)
    ids = torch.full((len(cut), length), pad)
    targets = torch.full((len(cut), length), -100)
    for at, row in enumerate(cut):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        wanted = [i if keep else -100 for i, keep in zip(row.ids[1:], row.learned[1:], strict=True)]
        targets[at, : len(wanted)] = torch.tensor(wanted)
    return ids, targets


def loss_of(model: Any, ids: torch.Tensor, targets: torch.Tensor) -> Any:
    """Mean over the learned tokens. The head runs over these alone; most positions are prompt."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    keep = targets != -100
    return cross_entropy(model.lm_head(hidden[keep]).float(), targets[keep])


def rate_at(progress: Progress, budget_s: float) -> float:
    warm = min(1.0, (progress.step + 1) / WARM_UP_STEPS)
    left = (1.0 - progress.cpu_s / budget_s) / (1.0 - COOLING_FROM)
    return PEAK_RATE * warm * max(0.01, min(1.0, left))


def optimizer_of(model: Any) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    gains = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)


def save(out: Path, model: Any, optimizer: Any, progress: Progress) -> None:
    """Weights as bfloat16; training goes on from the full ones in `state.pt`."""
    partial = out / "state.pt.partial"
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": vars(progress),
        },
        partial,
    )
    partial.rename(out / "state.pt")
    stored = LlamaForCausalLM(model.config).bfloat16()
    stored.load_state_dict(model.state_dict())
    defaults: Any = GenerationConfig
    stored.generation_config = defaults(
        do_sample=False,
        max_new_tokens=256,
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    stored.save_pretrained(out)


def open_run(out: Path, start: Path | None) -> tuple[Any, Any, Any, Progress]:
    """Tokenizer, model, optimizer and progress: those found in `out`, else of `start`, else new."""
    if not (out / "tokenizer.json").exists():
        if start is None:
            save_tokenizer(train_tokenizer(), out)
        else:
            copy_tokenizer(start, out)
            save_tokenizer(AutoTokenizer.from_pretrained(out, model_max_length=CONTEXT), out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    check_tokenizer(tokenizer)
    torch.manual_seed(0)
    model = LlamaForCausalLM(configuration(tokenizer))
    if start is not None:
        load_pruned(model, start)
    optimizer, progress = optimizer_of(model), Progress()
    if (out / "state.pt").exists():
        state = torch.load(out / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
    return tokenizer, model, optimizer, progress


def train(out: Path, budget_s: float, start: Path | None, report_every: int = 100) -> None:
    tokenizer, model, optimizer, progress = open_run(out, start)
    before_s, losses, saved_at = progress.cpu_s, 0.0, progress.cpu_s

    def share_of_noise() -> float:
        used = progress.cpu_s / budget_s
        return next(share for until, share in NOISE if used <= until or until == 1.0)

    for ids, targets in batches(tokenizer, 10 + progress.step, share_of_noise):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(progress, budget_s)
        loss = loss_of(model, ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
        progress.tokens += ids.numel()
        progress.cpu_s = before_s + time.process_time()
        losses += loss.item()
        if progress.step % report_every == 0:
            print(
                json.dumps(
                    {
                        **vars(progress),
                        "loss": round(losses / report_every, 4),
                        "rate": round(rate_at(progress, budget_s), 6),
                    }
                ),
                flush=True,
            )
            losses = 0.0
        if progress.cpu_s >= budget_s or progress.cpu_s - saved_at > 120:
            save(out, model, optimizer, progress)
            saved_at = progress.cpu_s
        if progress.cpu_s >= budget_s:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a model folder to begin with")
    parser.add_argument("--cpu-seconds", type=float, default=5000, help="in all, over all runs")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    train(options.out, options.cpu_seconds, options.start)


if __name__ == "__main__":
    main()
