"""One model over two processes generates what it generates in one. On CPUs, over gloo."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from helpers import parallel_engine
from helpers.running_engine import alone
from helpers.tiny_models import packed, random_model, tiny_llama
from helpers.tiny_tokenizers import byte_level

HELPERS = Path(parallel_engine.__file__).parent


@pytest.mark.timeout(120)
async def test_two_processes_with_half_of_every_matrix_generate_what_one_generates(
    tmp_path: Path,
) -> None:
    random_model("llama").save_pretrained(tmp_path)
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast"}'
    )
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(*command, str(HELPERS / "parallel_engine.py"), str(tmp_path)),
        env={**os.environ, "PYTHONPATH": str(HELPERS.parent), "OMP_NUM_THREADS": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    generated = json.loads(out)
    for one in parallel_engine.SEQUENCES:
        assert generated[str(one.sequence_id)] == alone(packed(tiny_llama()), one)
