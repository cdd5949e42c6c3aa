"""Asks a model fresh prompts of every lesson and counts the right answers.

    python tools/default_model/evaluate.py --model DIR --out evaluation.json

Greedy, in float32, through transformers' own `generate`. Facts of the valley are a closed set, so
their scores tell how well they are remembered; lists of words, numbers and places to copy or sort
are almost all new to the model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpus import LESSONS, draw_lesson, single
from long_talk import agent_talk, found_in_prose
from openers import JOKES
from stories import ABOUT_BOTH, HAIKU, HEROES, THINGS
from talk import Conversation, Message, say
from valley import a

SEED = 2_000_003
NEW_NOUNS = (
    "plumber",
    "walrus",
    "kazoo",
    "lobster",
    "judge",
    "trombone",
    "juggler",
    "moose",
    "typewriter",
    "barber",
    "gondola",
    "weasel",
    "chimney",
    "cactus",
    "pilot",
    "ladder",
)
TASKS = (
    *LESSONS,
    *("tool_call", "tool_result", "tool_again", "tool_unused", "tool_of_many"),
    *("story_new_nouns", "late_in_talk", "late_in_long_talk", "found_in_prose"),
)
# Letters of prompts that fit the context and leave room for the answer.
LONGEST = 5000
BATCH = 15


def asked(task: str, rng: Random) -> Conversation:
    if task == "story_new_nouns":
        hero, thing = rng.sample(NEW_NOUNS, 2)
        slots = {"hero": hero, "a_hero": a(hero), "thing": thing, "a_thing": a(thing)}
        return Conversation("story", say(rng.choice(ABOUT_BOTH).format(**slots), ""))
    if task in ("late_in_talk", "late_in_long_talk"):
        lessons = 9 if task == "late_in_talk" else 34
        talk = [message for _ in range(lessons) for message in draw_lesson(rng)[1]]
        return Conversation(task, talk + single("person_fact", rng).messages)
    if task in ("tool_of_many", "found_in_prose"):
        draw = agent_talk if task == "tool_of_many" else found_in_prose
        drawn = (draw(rng) for _ in count())
        return next(t for t in drawn if len(str(t.messages)) + len(str(t.tools)) < LONGEST)
    return single(task, rng)


def is_right(task: str, prompt: str, reply: str, wanted: str) -> bool:
    """Exact, where there is one right answer. Stories must be whole and about what was asked."""
    if task == "joke":
        return reply in JOKES
    if task in ("story", "story_new_nouns", "verse"):
        words = set(prompt.lower().replace(",", " ").strip(" .?!:)").split())
        nouns = words & {*HEROES, *THINGS, *NEW_NOUNS}
        if reply == HAIKU:
            return "haiku" in words
        whole = reply.count("\n") == 3 if task == "verse" else 30 <= len(reply.split()) <= 120
        return whole and all(noun in reply for noun in nouns)
    return reply == wanted


@torch.inference_mode()
def replies(model: Any, tokenizer: Any, talks: list[Conversation]) -> list[str]:
    """Empty where the model did not end by itself."""
    texts = [
        tokenizer.apply_chat_template(
            talk.messages[:-1], tools=talk.tools or None, tokenize=False, add_generation_prompt=True
        )
        for talk in talks
    ]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    output = model.generate(**inputs, do_sample=False, max_new_tokens=220)
    fresh = output[:, inputs["input_ids"].shape[1] :]
    ended = (fresh == tokenizer.eos_token_id).any(dim=1).tolist()
    decoded = tokenizer.batch_decode(fresh, skip_special_tokens=True)
    return [text if end else "" for text, end in zip(decoded, ended, strict=True)]


def score(model: Any, tokenizer: Any, task: str, prompts: int) -> dict[str, Any]:
    rng = Random(f"{SEED} {task}")
    talks = [asked(task, rng) for _ in range(prompts)]
    got: list[str] = []
    for at in range(0, prompts, BATCH):
        got += replies(model, tokenizer, talks[at : at + BATCH])
    wrong: list[Message] = []
    for talk, reply in zip(talks, got, strict=True):
        prompt, wanted = talk.messages[-2]["content"], talk.messages[-1]["content"]
        if not is_right(task, prompt, reply, wanted):
            wrong.append({"prompt": prompt, "reply": reply, "wanted": wanted})
    right = prompts - len(wrong)
    return {
        "prompts": prompts,
        "right": right,
        "percent": round(100 * right / prompts, 1),
        "wrong": wrong[:2],
    }


def evaluate(folder: Path, prompts: int, tasks: list[str]) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = (folder / "model.safetensors").read_bytes()
    scores = {}
    for task in tasks:
        scores[task] = score(model, tokenizer, task, prompts)
        print(f"{task:20} {scores[task]['percent']:5.1f} %", flush=True)
    return {
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "seed": SEED,
        "decoding": "greedy, float32",
        "scores": scores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=60, help="per task")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = evaluate(options.model, options.prompts, options.tasks)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
