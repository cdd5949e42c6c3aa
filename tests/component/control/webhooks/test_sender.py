"""Endpoints of tenants are strangers: slow, redirecting, endless, or inside; over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from headrace.auth.networks import parse_networks
from headrace.credentials.tls_files import TlsPaths
from headrace_control.webhooks.sender import Answer, WebhookSender
from helpers.http_server import answer, http_server
from helpers.mesh_certificates import MeshAuthority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = parse_networks(["127.0.0.0/8"])
HEADERS = {"webhook-id": "evt_1"}


@asynccontextmanager
async def listening(serve: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve connections, each until `serve` returns or the client leaves; yield the port."""

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                await serve(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def serving_tls(files: TlsPaths) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.cert, files.key)
    return tls


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    async with WebhookSender(LOOPBACK, timeout_s=2) as opened:
        yield opened


async def test_a_post_arrives_as_it_was_signed(sender: WebhookSender) -> None:
    async with http_server(answer(204)) as server:
        url = f"http://localhost:{server.port}/hooks?for=acme"
        assert await sender.send(url, HEADERS, b'{"id": 1}') == Answer(204)
    (asked,) = server.asked
    assert asked.line == "POST /hooks?for=acme HTTP/1.1"
    assert asked.headers["host"] == f"localhost:{server.port}"
    assert (asked.headers["webhook-id"], asked.body) == ("evt_1", b'{"id": 1}')


async def test_no_redirect_is_followed(sender: WebhookSender) -> None:
    async with http_server(answer(200)) as inside:
        redirect = answer(307, location=f"http://127.0.0.1:{inside.port}/secret")
        async with http_server(redirect) as server:
            assert await sender.send(f"http://127.0.0.1:{server.port}/", HEADERS, b"") == Answer(
                307
            )
    assert inside.asked == []


async def test_silence_ends_after_the_whole_time() -> None:
    async with WebhookSender(LOOPBACK, timeout_s=0.2) as sender, http_server(None) as server:
        found = await sender.send(f"http://127.0.0.1:{server.port}/", HEADERS, b"")
    assert found == Answer(error="it has not answered within 0.2 s")


async def test_a_head_that_drips_ends_after_the_whole_time() -> None:
    """Each byte comes within the time of one read; the whole never does."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with (
        WebhookSender(LOOPBACK, timeout_s=0.4) as sender,
        listening(drip) as port,
    ):
        found = await sender.send(f"http://127.0.0.1:{port}/", HEADERS, b"")
    assert found == Answer(error="it has not answered within 0.4 s")


async def test_an_endless_body_is_not_read(sender: WebhookSender) -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
            written += 0x10000

    async with listening(flood) as port:
        assert await sender.send(f"http://127.0.0.1:{port}/", HEADERS, b"") == Answer(200)
    assert written < 16 * 2**20  # what sockets buffer


async def test_what_is_not_listed_is_not_connected_to() -> None:
    async with WebhookSender((), timeout_s=2) as sender, http_server(answer(200)) as server:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "0x7f.1"):
            for scheme in ("http", "https"):
                found = await sender.send(f"{scheme}://{host}:{server.port}/", HEADERS, b"")
                assert found.status == 0
                assert "webhook_networks" in found.error, (host, found)
    assert server.asked == []


async def test_a_name_is_resolved_once_and_its_address_is_kept(tmp_path: Path) -> None:
    """The second answer leads inside; TLS and Host go on with the name."""
    files = MeshAuthority(tmp_path).issue("webhooks", "hooks")
    trusted = ssl.create_default_context(cafile=str(files.ca))
    trusted.check_hostname = False
    tls, names = serving_tls(files), list[str]()
    tls.sni_callback = lambda _, name, __: names.append(name or "")
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        writer.write(answer(200))
        await writer.drain()

    async with (
        listening(serve, tls) as port,
        WebhookSender(
            LOOPBACK, timeout_s=5, resolve=lambda _: answers.pop(0), trusted=trusted
        ) as sender,
    ):
        url = f"https://hooks.example.com:{port}/"
        assert await sender.send(url, HEADERS, b"") == Answer(200)
        assert len(answers) == 1
        assert "webhook_networks" in (await sender.send(url, HEADERS, b"")).error
    assert names[0] == "hooks.example.com"
    assert f"host: hooks.example.com:{port}" in names[1]


async def test_a_certificate_of_another_name_or_authority_is_refused(tmp_path: Path) -> None:
    files = MeshAuthority(tmp_path).issue("webhooks", "hooks")

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200))

    async with listening(serve, serving_tls(files)) as port:
        for trusted in (None, ssl.create_default_context(cafile=str(files.ca))):
            async with WebhookSender(
                LOOPBACK, timeout_s=5, resolve=lambda _: ["127.0.0.1"], trusted=trusted
            ) as sender:
                found = await sender.send(f"https://hooks.example.com:{port}/", HEADERS, b"")
                assert "certificate" in found.error


async def test_what_fails_is_told_without_addresses(sender: WebhookSender) -> None:
    async with http_server(answer(200)) as server:
        port = server.port
    closed = await sender.send(f"http://127.0.0.1:{port}/", HEADERS, b"")
    assert closed == Answer(error="it cannot be connected to")

    def unknown(_: str) -> list[str]:
        raise OSError("10.0.0.53 does not know it")

    async with WebhookSender(LOOPBACK, resolve=unknown) as other:
        found = await other.send("https://nowhere.example.com/", HEADERS, b"")
    assert found.error
    assert "10.0.0.53" not in found.error
