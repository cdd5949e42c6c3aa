"""A client that was closed says so, and files that it sends are closed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from headrace.client import AsyncClient, Client
from headrace.client.calls.endpoint import Endpoint
from headrace.client.calls.scripts import RestCall, Upload
from headrace.errors import FailedPrecondition

URL = "http://127.0.0.1:1"


def test_a_call_after_close_says_that_the_client_is_closed() -> None:
    client = Client(URL)
    client.close()
    for call in (
        client.models,
        lambda: client.chat("x", model="m"),
        lambda: list(client.files.list()),
        lambda: list(client.responses.stream("x", model="m")),
    ):
        with pytest.raises(FailedPrecondition, match="the client is closed"):
            call()


def test_a_call_after_close_says_so_without_blocking_too() -> None:
    async def closed() -> None:
        client = AsyncClient(URL)
        await client.close()
        with pytest.raises(FailedPrecondition, match="the client is closed"):
            await client.models()
        with pytest.raises(FailedPrecondition, match="the client is closed"):
            await client.chat("x", model="m")

    asyncio.run(closed())


def test_a_file_is_closed_once_it_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"some rows")
    opened: list[IO[Any]] = []
    real = Path.open

    def spied(self: Path, mode: str) -> IO[Any]:
        opened.append(real(self, mode))
        return opened[-1]

    monkeypatch.setattr(Path, "open", spied)
    call = RestCall("POST", "/", upload=Upload("rows.jsonl", path, {}))
    with httpx.Client(base_url=URL) as http:
        with Endpoint(URL).http_request(http, call) as request:
            assert b"some rows" in request.read()
        assert [file.closed for file in opened] == [True]
