"""Control behind a real Envoy, with keys required, as browsers reach it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from headrace.bus.jetstream import connect
from headrace.supervisor.servers.local_replies import Timeouts
from headrace.testing.nats_server import nats_server
from headrace_control.base.records import AuditEvent
from headrace_control.store import Store
from helpers import openid_provider as fake
from helpers.control_api import ControlApi
from helpers.control_process import control_process, serving, write_peppers
from helpers.running_edge import running_edge

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}
SESSION, SIGN_IN = "headrace_session", "headrace_sign_in"


@dataclass(frozen=True)
class ControlEdge:
    url: str
    port: int
    """Of control itself."""
    nats_url: str
    admin_key: str
    login: fake.OpenIdProvider
    log: Path
    database_url: str

    def admin(self) -> ControlApi:
        """Calls as an operator of the mesh."""
        return ControlApi(self.port, self.admin_key)

    def browser(self) -> Browser:
        return Browser(self)

    async def audited(self, action: str) -> list[AuditEvent]:
        """Return the audit's events of this action, the newest first."""
        store = await Store.open(self.database_url)
        try:
            return list((await store.audit.list(action=action)).items)
        finally:
            await store.close()

    async def rows(self, table: str) -> dict[str, bytes]:
        """Return what gateways see."""
        bus = await connect(self.nats_url, name="watcher", replicas=None)
        try:
            return await bus.rows(table)
        finally:
            await bus.close()


class Browser:
    """A browser on a page of the mesh, with cookies of its own; use it as a context manager."""

    def __init__(self, edge: ControlEdge) -> None:
        self._edge = edge
        self.http = httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20)

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    @property
    def session(self) -> str | None:
        return self.http.cookies.get(SESSION)

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A call that a script of the page makes."""
        headers = SAME_ORIGIN | options.pop("headers", {})
        return await self.http.request(method, f"/v2/admin/{path}", headers=headers, **options)

    async def visit(self, url: str) -> httpx.Response:
        """A link that the person follows, without what it redirects to."""
        headers = {"accept": "text/html,*/*", "sec-fetch-site": "cross-site"}
        return await self.http.get(url, headers=headers)

    async def begin(self, return_to: str = "/ui/chat") -> httpx.Response:
        return await self.visit(f"/v2/admin/oidc/login?return_to={return_to}")

    async def consent(self, **account: Any) -> str:
        """Begin to sign in, and consent at the provider; return where it sends the browser."""
        self._edge.login.account = fake.Account(**account)
        begun = await self.begin()
        assert begun.status_code == 303, begun.text
        return str((await self.visit(begun.headers["location"])).headers["location"])

    async def sign_in(self, **account: Any) -> httpx.Response:
        """Sign in at the provider with this account, and return what follows then."""
        return await self.visit(await self.consent(**account))

    async def sign_in_with_key(self, key: str) -> httpx.Response:
        return await self.call("POST", "sessions", json={"key": key})

    async def me(self) -> httpx.Response:
        return await self.call("GET", "sessions/me")


@asynccontextmanager
async def control_edge(
    folder: Path, *, timeouts: Timeouts | None = None, **settings: Any
) -> AsyncIterator[ControlEdge]:
    proof = secrets.token_hex(16)
    for name, content in (("proof", proof), ("client-secret", fake.CLIENT_SECRET)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(content)
    with fake.openid_provider() as login:
        async with (
            nats_server(folder / "nats") as nats,
            running_edge(folder, proof=proof, timeouts=timeouts) as edge,
        ):
            chosen: dict[str, Any] = {
                "auth": "keys",
                "peppers_file": write_peppers(folder / "peppers", "a"),
                "edge_secret_file": folder / "proof",
                "bootstrap_keys_dir": folder / "state",
                "public_url": edge.url,
                "oidc_issuer": login.issuer,
                "oidc_client_id": fake.CLIENT_ID,
                "oidc_client_secret_file": folder / "client-secret",
            } | settings
            async with control_process(folder, nats.url, **chosen) as running:
                await serving(running)
                port = running.ports["grpc"]
                edge.edge.set_controls([("127.0.0.1", port)])
                file = folder / "state" / "admin.key"
                key = file.read_text().strip() if file.exists() else ""
                log, database_url = folder / "control.log", f"sqlite:///{folder / 'control.db'}"
                served = ControlEdge(edge.url, port, nats.url, key, login, log, database_url)
                await _reached(served)
                yield served


async def _reached(edge: ControlEdge) -> None:
    """Return once Envoy has found control healthy."""
    async with asyncio.timeout(20), edge.browser() as browser:
        while (await browser.me()).status_code not in (200, 401):
            await asyncio.sleep(0.05)
