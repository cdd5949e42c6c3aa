"""A large batch through kills of every process, several of each, against its undisturbed run.

One mesh of the scripted engine runs the same rows twice: undisturbed, and while its processes are
killed in turn with SIGKILL, each once the batch has come further by the same number of rows. Then
each row has to be in the output once, with the text of the undisturbed run, and both runs have to
be billed once: requests, and output tokens to the token. The exit status is 0 if so.

PYTHONPATH=tests python tests/chaos/batch_soak.py --json tests/chaos/results/batch.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from openai.types import Batch

from helpers.batch_rows import TOKENS, billed, create, lines, row, texts
from helpers.fresh_mesh import FreshMesh, fresh_mesh

MESH = ("--gateways", "2", "--workers", "2", "--scripted-step-ms", "20")
VICTIMS = (
    *("control-0", "gateway-0", "worker-scripted-0", "scheduler-0", "nats"),
    *("gateway-1", "worker-scripted-1"),
)
FINAL = ("completed", "failed", "expired", "cancelled")
ENDED_WITHIN_S = 1200.0
BILLED_WITHIN_S, SETTLED_S = 60.0, 5.0
"""How long records of usage may take to be stored, and how long no further one may come then."""


@dataclass
class Soak:
    mesh: FreshMesh
    client: openai.AsyncOpenAI
    rows: int
    kills: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What is not as it has to be."""

    async def run(self, victims: Sequence[str]) -> dict[str, Any]:
        """Return the figures of both runs."""
        rows = [row(number) for number in range(self.rows)]
        undisturbed, undisturbed_s = await self._batch(rows, ())
        disturbed, disturbed_s = await self._batch(rows, victims)
        for what, batch in (("undisturbed", undisturbed), ("disturbed", disturbed)):
            self._judge_counts(what, batch)
        expected = await lines(self.client, undisturbed.output_file_id)
        found = await lines(self.client, disturbed.output_file_id)
        errors = await lines(self.client, disturbed.error_file_id)
        ids = Counter(line["custom_id"] for line in [*found, *errors])
        self._require(ids == Counter(each["custom_id"] for each in rows), "each row is there once")
        unequal = texts(expected).items() ^ texts(found).items()
        self._require(not unequal, "texts are those of the undisturbed run")
        tokens = self.rows * TOKENS
        requests_billed, tokens_billed = await self._billed(2 * self.rows)
        self._require(requests_billed == 2 * self.rows, "each row of both runs is billed once")
        self._require(tokens_billed == 2 * tokens, "output tokens are billed exactly")
        return {
            "rows": self.rows,
            "tokens_of_a_row": TOKENS,
            "undisturbed_s": round(undisturbed_s, 1),
            "disturbed_s": round(disturbed_s, 1),
            "rows_in_output": len(found),
            "rows_in_errors": len(errors),
            "rows_repeated": ids.total() - len(ids),
            "texts_unequal": len(unequal) // 2,
            "requests_billed_of_both_runs": requests_billed,
            "output_tokens_billed_of_both_runs": tokens_billed,
            "output_tokens_of_both_outputs": 2 * tokens,
            "kills": self.kills,
            "faults": self.faults,
        }

    async def _batch(
        self, rows: list[dict[str, Any]], victims: Sequence[str]
    ) -> tuple[Batch, float]:
        began_s = time.monotonic()
        batch = await create(self.client, rows)
        async with asyncio.timeout(ENDED_WITHIN_S):
            for number, victim in enumerate(victims, 1):
                batch = await self._progressed(batch, number * self.rows // (len(victims) + 2))
                await self._kill(victim, batch, time.monotonic() - began_s)
            batch = await self._progressed(batch, self.rows + 1)
        return batch, time.monotonic() - began_s

    async def _progressed(self, batch: Batch, to: int) -> Batch:
        """Return the batch once so many rows are answered, or it has ended."""
        while True:
            batch = await self.client.batches.retrieve(batch.id)
            counts = batch.request_counts
            if batch.status in FINAL or (counts is not None and counts.completed >= to):
                return batch
            await asyncio.sleep(0.2)

    async def _kill(self, victim: str, batch: Batch, after_s: float) -> None:
        rows = batch.request_counts.completed if batch.request_counts else 0
        self._require(batch.status == "in_progress", f"{victim} dies while the batch runs")
        before = self.mesh.processes[victim]
        if before.pid is None:
            self.faults.append(f"{victim} was away when it was to be killed")
            return
        struck_s = time.monotonic()
        await self.mesh.kill(victim)
        took_s = time.monotonic() - struck_s
        self.kills.append(
            {
                "process": victim,
                "after_s": round(after_s, 1),
                "rows": rows,
                "back_after_s": round(took_s, 2),
            }
        )
        print(f"{after_s:6.1f} s  {rows:5d} rows  {victim}, back after {took_s:.1f} s", flush=True)

    def _judge_counts(self, what: str, batch: Batch) -> None:
        counts, usage = batch.request_counts, batch.usage
        self._require(batch.status == "completed", f"{what}: completes, and is {batch.status}")
        self._require(
            counts is not None and (counts.completed, counts.failed) == (self.rows, 0),
            f"{what}: all rows complete, and counts are {counts}",
        )
        self._require(
            usage is not None and usage.output_tokens == self.rows * TOKENS,
            f"{what}: its usage is that of its rows, and is {usage}",
        )

    async def _billed(self, requests: int) -> tuple[int, int]:
        """Return the requests and output tokens that are billed, once no more are stored."""
        end_s = time.monotonic() + BILLED_WITHIN_S
        while await billed(self.client, of="num_model_requests") < requests:
            if time.monotonic() > end_s:
                break
            await asyncio.sleep(0.5)
        await asyncio.sleep(SETTLED_S)
        return await billed(self.client, of="num_model_requests"), await billed(self.client)

    def _require(self, holds: bool, rule: str) -> None:
        if not holds:
            self.faults.append(rule)


async def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=3, help="kills of each process")
    options.add_argument("--json", type=Path, help="write the figures here")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-batch-") as folder:
        async with (
            fresh_mesh(Path(folder), *MESH) as mesh,
            openai.AsyncOpenAI(
                base_url=f"{mesh.url}/v1", api_key="none", max_retries=200
            ) as client,
        ):
            figures = await Soak(mesh, client, given.rows).run(VICTIMS * given.rounds)
    if given.json is not None:
        text = json.dumps({"mesh": MESH, **figures}, indent=1)
        await asyncio.to_thread(given.json.write_text, f"{text}\n")
    print(json.dumps({**figures, "kills": len(figures["kills"])}, indent=1))
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
