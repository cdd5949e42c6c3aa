"""OpenAI's files through a real Envoy, as OpenAI's client and others use them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import nats
import openai
import pytest
import pytest_asyncio
from google.api.httpbody_pb2 import HttpBody

from headrace.bus.jetstream import connect
from headrace.rpc.channels import aio_channel
from headrace.supervisor.servers.local_replies import Timeouts
from headrace.v1 import files_pb2_grpc
from helpers.control_edge import ControlEdge, control_edge
from helpers.eventually import eventually
from helpers.raw_http import connected

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANT_BYTES = 8 << 20
IDLE_S = 1.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlEdge]:
    folder, timeouts = tmp_path_factory.mktemp("edge"), Timeouts(body_idle_s=IDLE_S)
    limits = {"files_tenant_bytes": TENANT_BYTES, "file_uploads": 8}
    async with control_edge(folder, timeouts=timeouts, **limits) as running:
        yield running


async def key_of(edge: ControlEdge, tenant: str, *scopes: str) -> str:
    async with edge.admin() as admin:
        return (await admin.create_key(tenant, scopes=scopes or ["files"])).secret


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(edge: ControlEdge) -> str:
    return await key_of(edge, "acme")


def client_of(edge: ControlEdge, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, base_url=f"{edge.url}/v1", max_retries=0)


@pytest_asyncio.fixture(loop_scope="module")
async def client(edge: ControlEdge, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(edge, key) as made:
        yield made
        # What a test leaves would count for the next.
        async for file in made.files.list():
            await made.files.delete(file.id)


@pytest_asyncio.fixture(loop_scope="module")
async def http(edge: ControlEdge, key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=edge.url, trust_env=False, timeout=20, headers=headers
    ) as made:
        yield made


async def stored_names(edge: ControlEdge) -> frozenset[str]:
    bus = await connect(edge.nats_url, name="test", replicas=None)
    try:
        return await bus.object_names()
    finally:
        await bus.close()


def form(data: bytes, purpose: str = "batch", name: str = "rows.jsonl") -> dict[str, Any]:
    return {"files": {"file": (name, data)}, "data": {"purpose": purpose}}


async def test_openais_client_uploads_lists_reads_and_deletes(
    client: openai.AsyncOpenAI, edge: ControlEdge
) -> None:
    data = os.urandom(3 << 20)
    file = await client.files.create(
        file=("rows.jsonl", data),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (file.bytes, file.filename, file.purpose) == (len(data), "rows.jsonl", "batch")
    assert (file.object, file.status) == ("file", "processed")
    assert file.expires_at == file.created_at + 3600
    assert await client.files.retrieve(file.id) == file
    assert (await client.files.list()).data == [file]
    content = await client.files.content(file.id)
    assert content.content == data
    assert content.response.headers["content-length"] == str(len(data))
    assert 'filename="rows.jsonl"' in content.response.headers["content-disposition"]
    deleted = await client.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    with pytest.raises(openai.NotFoundError) as gone:
        await client.files.content(file.id)
    assert gone.value.code == "resource_not_found"
    assert file.id not in await stored_names(edge)


async def test_the_client_reads_a_list_page_by_page(client: openai.AsyncOpenAI) -> None:
    made = [await client.files.create(file=b"x", purpose="user_data") for _ in range(5)]
    found = [file.id async for file in client.files.list(limit=2, order="asc")]
    assert sorted(found) == sorted(file.id for file in made)
    assert (await client.files.list(purpose="batch")).data == []


async def test_an_empty_file_is_one_too(client: openai.AsyncOpenAI) -> None:
    file = await client.files.create(file=("empty", b""), purpose="user_data")
    assert file.bytes == 0
    assert (await client.files.content(file.id)).content == b""


async def test_files_of_another_tenant_are_not_found(
    client: openai.AsyncOpenAI, edge: ControlEdge
) -> None:
    file = await client.files.create(file=b"x", purpose="batch")
    async with client_of(edge, await key_of(edge, "other")) as other:
        calls: tuple[Any, ...] = (other.files.retrieve, other.files.content, other.files.delete)
        for call in calls:
            with pytest.raises(openai.NotFoundError):
                await call(file.id)
        assert (await other.files.list()).data == []
    assert (await client.files.content(file.id)).content == b"x"


async def test_who_uploads_and_deletes_is_audited(
    client: openai.AsyncOpenAI, edge: ControlEdge
) -> None:
    file = await client.files.create(file=("secret-name", b"x"), purpose="batch")
    await client.files.delete(file.id)
    for action in ("files.create", "files.delete"):
        event = (await edge.audited(action))[0]
        assert event.resource == f"tenants/acme/files/{file.id}"
        assert event.actor.startswith("tenants/acme/keys/")
    assert "secret-name" not in edge.log.read_text()


async def test_a_key_without_the_scope_may_not(edge: ControlEdge) -> None:
    async with client_of(edge, await key_of(edge, "acme", "generate")) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.files.create(file=b"x" * (2 << 20), purpose="batch")
        assert refused.value.code == "permission_denied"
        with pytest.raises(openai.PermissionDeniedError):
            await client.files.list()


async def test_a_wrong_key_is_an_answer_also_to_a_large_file(edge: ControlEdge) -> None:
    async with client_of(edge, "hr_wrong") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.files.create(file=b"x" * (32 << 20), purpose="batch")
    assert refused.value.code == "invalid_api_key"
    assert refused.value.response.headers["www-authenticate"] == "Bearer"


async def test_a_wrong_purpose_is_an_answer_also_to_a_large_file(
    client: openai.AsyncOpenAI, edge: ControlEdge
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.files.create(file=b"x" * (4 << 20), purpose="cooking")  # type: ignore[arg-type]
    assert (refused.value.param, refused.value.type) == ("purpose", "invalid_request_error")
    assert await stored_names(edge) == frozenset()


async def test_a_tenant_stores_no_more_than_it_may(
    client: openai.AsyncOpenAI, edge: ControlEdge
) -> None:
    file = await client.files.create(file=b"x" * (6 << 20), purpose="batch")
    with pytest.raises(openai.RateLimitError) as refused:
        await client.files.create(file=b"x" * (3 << 20), purpose="batch")
    assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert await stored_names(edge) == {file.id}


async def test_an_upload_without_a_length_is_counted_as_it_comes(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, edge: ControlEdge
) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(count):
            yield b"x" * (1 << 20)
        yield b"\r\n--b--\r\n"

    chunked = {"content-type": "multipart/form-data; boundary=b"}
    stored = await http.post("/v1/files", content=chunks(2), headers=chunked)
    assert stored.json()["bytes"] == 2 << 20
    refused = await http.post("/v1/files", content=chunks(7), headers=chunked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert await stored_names(edge) == {stored.json()["id"]}


async def test_an_upload_that_breaks_off_leaves_nothing(
    client: openai.AsyncOpenAI, key: str, edge: ControlEdge
) -> None:
    async with connected(edge.url) as connection:
        await connection.send(begun_upload(key, 5 << 20) + b"x" * (3 << 20))

        async def is_stored() -> bool:
            return bool(await stored_names(edge))

        await eventually(is_stored)

    async def is_gone() -> bool:
        return not await stored_names(edge)

    await eventually(is_gone)
    assert (await client.files.list()).data == []


async def test_an_upload_that_stands_still_is_cut_and_a_slow_one_is_not(
    client: openai.AsyncOpenAI, key: str, edge: ControlEdge
) -> None:
    async with connected(edge.url) as still, connected(edge.url) as slow:
        await still.send(begun_upload(key, 1000))
        await slow.send(begun_upload(key, 12))
        standing = asyncio.create_task(still.answer("POST"))
        for _ in range(12):
            await asyncio.sleep(IDLE_S / 4)  # what is slow takes its time
            await slow.send(b"x")
        cut = await standing
        assert (cut.status, cut.json()["error"]["code"]) == (408, "request_timeout")
        await slow.send(b"\r\n--b--\r\n")
        assert (await slow.answer("POST")).json()["bytes"] == 12

    async def is_gone() -> bool:
        return len(await stored_names(edge)) == 1

    await eventually(is_gone)


def begun_upload(key: str, size: int) -> bytes:
    """The head of an upload of so many bytes, and its form up to the first of them."""
    before = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
    )
    return (
        b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\n"
        b"authorization: Bearer %s\r\ncontent-type: multipart/form-data; boundary=b\r\n"
        b"content-length: %d\r\n\r\n%s" % (key.encode(), len(before) + size + 9, before)
    )


async def test_bytes_that_were_damaged_are_never_taken_for_the_file(
    client: openai.AsyncOpenAI, edge: ControlEdge
) -> None:
    file = await client.files.create(file=os.urandom(2 << 20), purpose="user_data")
    broker = await nats.connect(edge.nats_url)
    js = broker.jetstream()
    state = (await js.stream_info("OBJ_headrace_files")).state
    await js.delete_msg("OBJ_headrace_files", state.last_seq - 2)
    await broker.close()
    with pytest.raises(openai.APIConnectionError):
        await client.files.content(file.id)


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("order=up", "order"), ("purpose=x", "purpose"), ("after=x", "after")],
)
async def test_a_list_out_of_range_is_refused(
    http: httpx.AsyncClient, query: str, param: str
) -> None:
    answer = await http.get(f"/v1/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_packed_form_is_refused(http: httpx.AsyncClient) -> None:
    packed = {"content-encoding": "gzip", "content-type": "multipart/form-data; boundary=b"}
    answer = await http.post("/v1/files", content=b"x", headers=packed)
    assert (answer.status_code, answer.json()["error"]["code"]) == (
        415,
        "unsupported_content_encoding",
    )


async def test_a_session_counts_for_uploads_of_own_pages_alone(
    client: openai.AsyncOpenAI, edge: ControlEdge, key: str
) -> None:
    async with edge.browser() as browser:
        await browser.sign_in_with_key(key)
        for site, status in (("same-origin", 200), ("cross-site", 401), ("same-site", 401)):
            answer = await browser.http.post(
                "/v1/files", headers={"sec-fetch-site": site}, **form(b"x")
            )
            assert answer.status_code == status, (site, answer.text)


async def test_native_calls_upload_too(
    client: openai.AsyncOpenAI, edge: ControlEdge, key: str
) -> None:
    body = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\nabc\r\n--b--\r\n'
    )

    async def messages() -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="multipart/form-data; boundary=b", data=body[:50])
        yield HttpBody(data=body[50:])

    async with aio_channel(edge.url.removeprefix("http://")) as channel:
        stub: Any = files_pb2_grpc.FileServiceStub(channel)
        call = stub.UploadFile(messages(), metadata=(("authorization", f"Bearer {key}"),))
        (answer,) = [message async for message in call]
        assert b'"bytes": 3' in answer.data
        assert await call.code() is grpc.StatusCode.OK
