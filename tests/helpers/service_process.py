"""Any of our services as a process of its own, as on a machine of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.eventually import eventually

START_S = 45.0


@dataclass(frozen=True)
class ServiceProcess:
    process: asyncio.subprocess.Process
    ports: dict[str, int]


@asynccontextmanager
async def service_process(
    module: str, folder: Path, name: str, **settings: object
) -> AsyncIterator[ServiceProcess]:
    """Its ports are bound on entry; SIGTERM on exit. Its log is in the folder."""
    ports_file = folder / f"{name}.json"
    insecure = ["--insecure"] if settings.pop("insecure", False) else []
    chosen = {"name": name, "ports_file": ports_file} | settings
    flags = [
        part for key, value in chosen.items() for part in (f"--{key.replace('_', '-')}", str(value))
    ]
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *flags, *insecure), stdout=log, stderr=log
        )
    try:
        await eventually(ports_file.exists, within_s=START_S)
        yield ServiceProcess(process, json.loads(ports_file.read_text()))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
