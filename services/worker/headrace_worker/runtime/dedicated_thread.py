"""Runs computations beside the engine, each on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")


async def run_in_dedicated_thread(act: Callable[[], R]) -> R:
    """Run `act` on a thread that ends with it; raise what it raises.

    If this call is cancelled, `act` continues, and the process waits for its end.
    """
    # Why not asyncio's threads: OpenMP keeps a team of threads for each thread that has ever
    # multiplied, until that one ends. While all teams together outnumber the cores, libgomp lets
    # no thread spin at a barrier, and the engine sleeps and wakes at each.
    executor = ThreadPoolExecutor(1, thread_name_prefix="beside the engine")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, act)
    finally:
        executor.shutdown(wait=False)
