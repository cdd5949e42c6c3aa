"""The broker of a mesh that does not run, for commands that read or write what it stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from subprocess import DEVNULL

from headrace.supervisor.servers.nats import Broker
from headrace.supervisor.servers.nats_permissions import BrokerUser
from headrace.supervisor.state.failures import ProcessFailed
from headrace.supervisor.state.files import SECRET_MODE, write_atomically
from headrace.supervisor.state.state_dir import StateDir

_START_S = 30.0
"""It reads its whole store first."""
_PAUSE_S = 0.02


@asynccontextmanager
async def broker_alone(state_dir: StateDir) -> AsyncIterator[tuple[str, Path]]:
    """Run the broker for the length of the `with`; give out its URL, and the file with the user and
    password that only this `with` has. No mesh can start in the state directory meanwhile.

    Raises:
        MeshRunning: a mesh runs there.
        ProcessFailed: the broker does not start.
    """
    password = token_hex(32)
    credentials = state_dir.folder / f".broker-{token_hex(4)}"
    with state_dir.lock():
        broker = Broker(state_dir.broker, passwords={BrokerUser.OPERATOR: password})
        broker.prepare()
        process = await asyncio.create_subprocess_exec(
            *broker.argv(), stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            await _started(broker, process, state_dir.log(broker.name))
            write_atomically(credentials, f"{BrokerUser.OPERATOR}:{password}\n", mode=SECRET_MODE)
            yield broker.url, credentials
        finally:
            credentials.unlink(missing_ok=True)
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _started(broker: Broker, process: asyncio.subprocess.Process, log: Path) -> None:
    try:
        async with asyncio.timeout(_START_S):
            while process.returncode is None and await broker.read_ports(process.pid) is None:
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        raise ProcessFailed(broker.name, f"does not listen after {_START_S:g} s", log) from None
    if process.returncode is not None:
        raise ProcessFailed(broker.name, f"ended with status {process.returncode}", log)
