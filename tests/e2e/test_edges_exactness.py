"""A model that changes at a length answers the same when a worker is killed beyond that length."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest
from tokenizers import Tokenizer

from headrace_worker.engine.backends.scripted_text import scripted_tokenizer_files
from helpers.fresh_mesh import fresh_mesh
from helpers.streams import Seen, chat
from helpers.strikes import Strike
from helpers.tiny_models import random_model
from helpers.tokenizer_folders import write_tokenizer

ORIGINAL, CONTEXT, TOKENS = 64, 1024, 900
SLOTS, STREAMS, STRIKES = 2, 3, 5
BEGUN = 200
"""Characters: beyond `ORIGINAL` tokens, and long before the end."""


def longrope_model(folder: Path) -> str:
    """A random Llama whose frequencies transformers would change after `ORIGINAL` tokens."""
    tokenizer = scripted_tokenizer_files()
    write_tokenizer(tokenizer, folder)
    random_model(
        "llama",
        vocab_size=Tokenizer.from_str(tokenizer.tokenizer_json.decode()).get_vocab_size(),
        bos_token_id=0,
        eos_token_id=1,
        max_position_embeddings=CONTEXT,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "factor": 16.0,
            "short_factor": [1.0] * 8,
            "long_factor": [4, 8, 3, 2, 6, 5, 4, 9],
            "original_max_position_embeddings": ORIGINAL,
        },
    ).save_pretrained(folder)
    return str(folder)


@pytest.mark.timeout(180)
async def test_answers_of_a_longrope_model_equal_those_of_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    source = f"{longrope_model(tmp_path / 'model')}=longrope"
    options = ("--engine", "transformers", "--model", source, "--workers", "2", "--threads", "1")
    slots = ("--set", f"worker.max_slots={SLOTS}")
    async with fresh_mesh(tmp_path / "mesh", *options, *slots) as mesh:
        url = f"{mesh.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def one(number: int, strike: Strike | None = None) -> Seen:
                def look(seen: Seen) -> None:
                    if strike is not None and len(seen.text) >= BEGUN:
                        strike.begun(number)

                return await chat(
                    client,
                    "longrope",
                    f"Tell me about number {number}.",
                    seed=number,
                    temperature=1.0,
                    max_tokens=TOKENS,
                    extra_body={"ignore_eos": True},
                    on_chunk=look,
                )

            expected = [await one(number) for number in range(STREAMS)]
            for _ in range(STRIKES):
                # Where clients are slow to read, the worker may have no stream any more.
                victim = "worker-longrope-0"
                async with Strike(mesh, victim, after=SLOTS, may_miss=True) as strike:
                    seen = await asyncio.gather(*(one(number, strike) for number in range(STREAMS)))
                assert [each.text for each in seen] == [each.text for each in expected]
                assert [each.completion_tokens for each in seen] == [TOKENS] * STREAMS
                if strike.has_hit:
                    break
            assert strike.has_hit
