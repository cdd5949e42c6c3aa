"""Real nats-servers with JetStream on free ports, for tests."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.extras import require_binary
from headrace.rpc.addresses import join_host_port

START_S = 10.0


class NatsServer:
    """A nats-server process that can be killed and restarted with its port and store."""

    def __init__(
        self,
        directory: Path,
        *,
        peers: Sequence[int] = (),
        number: int = 0,
        host: str = "127.0.0.1",
        jetstream: bool = True,
        more: str = "",
    ) -> None:
        """
        Args:
            peers: the cluster ports of all servers; `number` is the index of this one's.
            more: further lines of the configuration file.
        """
        self._host, self._jetstream, self._more = host, jetstream, more
        self.directory = directory
        self.name = f"nats-{number}"
        self._peers, self._number = peers, number
        self.port = -1
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://{join_host_port(self._host, self.port)}"

    async def start(self) -> None:
        """Start the server; return once it accepts connections."""
        ports = self.directory / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir(parents=True)
        config = self.directory / "nats.conf"
        config.write_text(
            f'listen: "{join_host_port(self._host, self.port)}"\n'
            f'ports_file_dir: "{ports}"\n'
            f"{self._store()}{self._more}\n"
            f'log_file: "{self.directory / "nats.log"}"\n'
            f"server_name: {self.name}\n" + self._cluster()
        )
        self._process = await asyncio.create_subprocess_exec(
            require_binary("mesh", "nats-server"), "-c", str(config)
        )
        async with asyncio.timeout(START_S):
            while not (found := list(ports.glob("*.ports"))) or not found[0].read_text():
                await asyncio.sleep(0.01)
        self.port = int(json.loads(found[0].read_text())["nats"][0].rsplit(":", 1)[1])

    def _store(self) -> str:
        return (
            f'jetstream {{ store_dir: "{self.directory / "store"}" }}\n' if self._jetstream else ""
        )

    def _cluster(self) -> str:
        if not self._peers:
            return ""
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._peers)
        listen = f"127.0.0.1:{self._peers[self._number]}"
        return f"cluster {{ name: headrace, listen: {listen}, routes: [{routes}] }}\n"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def freeze(self) -> None:
        """Stop the process: connections stay open, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Send SIGKILL: what was not written is lost."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        self.thaw()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


@asynccontextmanager
async def nats_server(
    directory: Path, *, host: str = "127.0.0.1", jetstream: bool = True, more: str = ""
) -> AsyncIterator[NatsServer]:
    """Run a server for the length of the `with`; the arguments are those of `NatsServer`."""
    server = NatsServer(directory, host=host, jetstream=jetstream, more=more)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def nats_cluster(directory: Path, *, size: int = 3) -> AsyncIterator[list[NatsServer]]:
    """Run a cluster for the length of the `with`; it soon elects a leader."""
    peers = _free_ports(size)
    servers = [NatsServer(directory / f"{n}", peers=peers, number=n) for n in range(size)]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        yield servers
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


def _free_ports(count: int) -> list[int]:
    # Why: each server needs the ports of the others before any has started.
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in opened]
    for one in opened:
        one.close()
    return ports
