"""Odd and broken HTTP, byte for byte, through a real Envoy to the real API.

Whatever is refused, wherever it is refused, is refused in the shape of its path: OpenAI's,
Cohere's for /v2/rerank, text-embeddings-inference's for /embed, google.rpc.Status for the rest of
/v2, a status for native gRPC.
"""

from __future__ import annotations

import grpc
import pytest

from headrace.v1 import models_pb2, models_pb2_grpc
from helpers.raw_http import RawAnswer, ask, connected, request
from helpers.running_edge import RunningEdge

V1, V2, COHERE, TEI = "/v1/models", "/v2/models", "/v2/rerank", "/embed"
COMPLETIONS = "/v1/completions"
PROMPT = b'{"model": "valley", "prompt": "hi"}'


def message_of(path: str, answer: RawAnswer) -> str:
    """The message of an error, which has to have the shape of its path."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    if path.startswith(COHERE):
        assert body.keys() == {"message"}
        return str(body["message"])
    if path == TEI:
        assert body.keys() == {"error", "error_type"}
        assert body["error_type"] == "Validation"
        return str(body["error"])
    if path.startswith("/v2/"):
        assert body.keys() == {"code", "message", "details"}
        assert body["details"][0]["domain"] == "headrace.dev"
        return str(body["message"])
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == ("server_error" if answer.status >= 500 else "invalid_request_error")
    return str(error["message"])


def filler(total: int) -> list[str]:
    """Headers of so many bytes in all."""
    return [f"x-filler-{n}: {'a' * (total // 5 - 20)}" for n in range(5)]


SERVED = {
    "an authorization of 12 kB": ["authorization: Bearer " + "a" * 12_000],
    "headers of nearly 60 kB": filler(60_000),
    "two hundred headers": [f"x-{n}: a" for n in range(200)],
    "a binary header that is not base64": ["x-foo-bin: not base64"],
    "an unknown grpc-encoding": ["grpc-encoding: foo", "grpc-accept-encoding: foo"],
    "a grpc-status": ["grpc-status: 3", "grpc-message: no"],
    "a good grpc-timeout": ["grpc-timeout: 30S"],
    "an odd te": ["te: gzip"],
    "an odd expect": ["expect: something"],
    "a header of bytes beyond ASCII": ["x-name: \xe9\xff"],
    "an offer of TLS": ["connection: Upgrade", "upgrade: TLS/1.2"],
    "an offer of HTTP/2": [
        "connection: Upgrade, HTTP2-Settings",
        "upgrade: h2c",
        "http2-settings: AAMAAABkAARAAAAAAAIAAAAA",
    ],
    "an offer of WebSocket": [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version: 13",
    ],
}


@pytest.mark.parametrize("wait", ["abc", "soon", "30x", "1e3", "", "-", "1234567890", "30s&wait=x"])
async def test_a_time_to_wait_that_is_none_is_refused_by_its_name(
    edge: RunningEdge, wait: str
) -> None:
    path = f"/v2/requests/some?wait={wait}"
    answer = await ask(edge.url, request("GET", path))
    assert answer.status == 400
    fact = "wait is a number of seconds from 0 to 60, for example wait=30 or wait=2.5s"
    assert message_of(path, answer) == fact


@pytest.mark.parametrize("wait", ["0", "1", "1.5", "2s", "0.5s", "2%73", "1&other=abc"])
async def test_a_time_to_wait_is_seconds_with_or_without_their_letter(
    edge: RunningEdge, wait: str
) -> None:
    answer = await ask(edge.url, request("GET", f"/v2/requests/some?wait={wait}"))
    assert answer.status == 404, answer.body


@pytest.mark.parametrize("path", [V1, V2])
async def test_headers_that_mean_nothing_here_change_nothing(edge: RunningEdge, path: str) -> None:
    for name, headers in SERVED.items():
        answer = await ask(edge.url, request("GET", path, *headers))
        assert answer.status == 200, (name, answer)


async def test_they_change_nothing_for_a_request_with_a_body(edge: RunningEdge) -> None:
    for name, headers in SERVED.items():
        answer = await ask(edge.url, request("POST", COMPLETIONS, *headers, body=PROMPT))
        assert (answer.status, answer.json()["object"]) == (200, "text_completion"), name


REFUSED: dict[str, tuple[int, str, list[str]]] = {
    "headers of 70 kB": (431, "61440 bytes", filler(70_000)),
    "a grpc-timeout that is none": (400, "grpc-timeout", ["grpc-timeout: abc"]),
    "a grpc-timeout of ten digits": (400, "grpc-timeout", ["grpc-timeout: 1234567890S"]),
    "a body packed by brotli": (415, "Content-Encoding", ["content-encoding: br"]),
}


@pytest.mark.parametrize("path", [V1, V2, COHERE, TEI])
async def test_what_is_refused_for_its_headers_is_refused_in_the_shape_of_its_path(
    edge: RunningEdge, path: str
) -> None:
    for name, (status, told, headers) in REFUSED.items():
        answer = await ask(edge.url, request("GET", path, *headers))
        assert answer.status == status, (name, answer)
        assert told in message_of(path, answer), name
        assert not [h for h in answer.headers if h.startswith(("x-hr-", "grpc-"))]


@pytest.mark.parametrize("path", [V1, V2, COHERE, TEI])
@pytest.mark.parametrize("method", ["TRACE", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_the_error_for_an_unknown_path_has_its_method_and_path(
    edge: RunningEdge, path: str, method: str
) -> None:
    answer = await ask(edge.url, request(method, path))
    assert answer.status == 404
    assert f"there is no {method} {path}" in message_of(path, answer)


async def test_a_caller_cannot_choose_another_shape(edge: RunningEdge) -> None:
    other = "x-envoy-original-path: /v2/models"
    answer = await ask(edge.url, request("GET", V1, other, *filler(70_000)))
    assert answer.status == 431
    assert message_of(V1, answer)


async def test_a_refusal_repeats_no_more_than_the_beginning_of_a_path(edge: RunningEdge) -> None:
    answer = await ask(edge.url, request("GET", "/nothing/" + "a" * 50_000))
    assert answer.status == 404
    assert len(message_of("/nothing", answer)) < 2_000


async def test_the_paths_that_there_are_come_from_the_descriptors(edge: RunningEdge) -> None:
    openai = message_of("/nothing", await ask(edge.url, request("GET", "/nothing")))
    assert "GET /v1/models/{model}" in openai
    assert "POST /v1/chat/completions, " in openai
    native = message_of("/v2/nothing", await ask(edge.url, request("GET", "/v2/nothing")))
    assert "POST /v2/models/{model}:generate" in native
    assert "/v1/" not in native


def lines(*told: str) -> bytes:
    return "\r\n".join([*told, "", ""]).encode("latin-1")


BROKEN: dict[str, tuple[int, str, bytes]] = {
    "no Host": (400, "Host header is missing", lines("GET /v1/models HTTP/1.1")),
    "a Host with a space": (400, "Host", lines("GET / HTTP/1.1", "host: a b")),
    "a NUL in a header": (400, "control character", request("GET", V1, "x-a: a\0b")),
    "a control character": (400, "control character", request("GET", V1, "x-a: a\x01b")),
    "a header name with a space": (400, "not valid HTTP", request("GET", V1, "x a: b")),
    "a header without a name": (400, "not valid HTTP", request("GET", V1, ": b")),
    "an unknown method": (400, "not valid HTTP", request("FOO", V1)),
    "a path beyond ASCII": (400, "not valid HTTP", request("GET", "/v1/\xff")),
    "an escaped NUL in the path": (400, "the path", request("GET", "/v1/models/%00")),
    "a fragment": (400, "the path", request("GET", "/v1/models#there")),
    "a model name that is no UTF-8": (400, "UTF-8", request("GET", "/v1/models/%ff%fe")),
    "a URL of another scheme": (400, "http or https", request("GET", "ftp://a.test/v1/models")),
    "a length that is no number": (400, "Content-Length", request("GET", V1, "content-length: x")),
    "a negative length": (400, "Content-Length", request("GET", V1, "content-length: -1")),
    "two lengths": (
        400,
        "Content-Length",
        request("GET", V1, "content-length: 1", "content-length: 2"),
    ),
    "a length and chunks": (
        400,
        "both Content-Length and Transfer-Encoding",
        request("GET", V1, "content-length: 3", "transfer-encoding: chunked"),
    ),
    "an unknown transfer encoding": (
        501,
        "Transfer-Encoding",
        request("GET", V1, "transfer-encoding: gzip, chunked"),
    ),
    "a chunk without a length": (
        400,
        "chunk",
        lines("POST /v1/completions HTTP/1.1", "host: a", "transfer-encoding: chunked") + b"zz\r\n",
    ),
    "a greeting of TLS": (400, "not valid HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"),
    "a tunnel": (404, "there is no CONNECT", lines("CONNECT a.test:80 HTTP/1.1", "host: a")),
}


async def test_the_error_for_what_is_not_http_has_the_reason(edge: RunningEdge) -> None:
    for name, (status, told, data) in BROKEN.items():
        answer = await ask(edge.url, data)
        assert answer.status == status, (name, answer)
        assert told in message_of(V1, answer), name


GOOD: dict[str, bytes] = {
    "HTTP/1.0": lines("GET /v1/models HTTP/1.0", "host: a"),
    "HTTP/1.0 without Host": lines("GET /v1/models HTTP/1.0"),
    "an absolute URL": lines("GET http://a.test/v1/models HTTP/1.1", "host: b"),
    "a dot in the path": request("GET", "/v1/x/../models"),
    "two slashes": request("GET", "//v1/models"),
    "a long query": request("GET", "/v1/models?x=" + "a" * 50_000),
    "an empty line first": b"\r\n" + request("GET", V1),
    "a folded header": request("GET", V1, "x-a: a\r\n b"),
    "a body where none is expected": lines("GET /v1/models HTTP/1.1", "host: a").replace(
        b"\r\n\r\n", b"\r\ncontent-length: 2\r\n\r\n{}"
    ),
    "a body in chunks": lines(
        "POST /v1/completions HTTP/1.1", "host: a", "transfer-encoding: chunked"
    )
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(PROMPT), PROMPT),
    "a body in chunks with trailers": lines(
        "POST /v1/completions HTTP/1.1", "host: a", "transfer-encoding: chunked"
    )
    + b"%x\r\n%b\r\n0\r\nx-sum: 1\r\n\r\n" % (len(PROMPT), PROMPT),
}


async def test_what_is_unusual_and_right_is_served(edge: RunningEdge) -> None:
    for name, data in GOOD.items():
        answer = await ask(edge.url, data)
        assert answer.status == 200, (name, answer)
        assert answer.json()["object"] in ("list", "text_completion"), name


async def test_an_old_proxy_gets_a_whole_stream(edge: RunningEdge) -> None:
    body = b'{"model": "valley", "prompt": "hi", "stream": true}'
    asked = request("POST", COMPLETIONS, body=body).replace(b"HTTP/1.1", b"HTTP/1.0")
    answer = await ask(edge.url, asked)
    assert (answer.status, answer.version) == (200, "1.0")
    assert "transfer-encoding" not in answer.headers
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("path", [COMPLETIONS, "/v2/models/valley:streamGenerate"])
async def test_a_stream_requests_of_proxies_not_to_buffer_it(edge: RunningEdge, path: str) -> None:
    body = b'{"model": "valley", "prompt": "hi", "stream": true}'
    if path != COMPLETIONS:
        body = b'{"prompt": "hi"}'
    answer = await ask(edge.url, request("POST", path, body=body))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"


async def test_a_client_that_waits_for_continue_gets_it(edge: RunningEdge) -> None:
    async with connected(edge.url) as connection:
        head = request("POST", COMPLETIONS, "expect: 100-continue", body=PROMPT)
        await connection.send(head.removesuffix(PROMPT))
        await connection.send(PROMPT)
        assert (await connection.answer()).status == 200


async def test_requests_in_a_row_are_answered_in_their_order(edge: RunningEdge) -> None:
    async with connected(edge.url) as connection:
        await connection.send(request("GET", V1) + request("GET", V2))
        assert "data" in (await connection.answer()).json()


@pytest.mark.parametrize("path", [V1, V2, "/v1/models/valley"])
async def test_head_is_answered_as_get_without_a_body(edge: RunningEdge, path: str) -> None:
    async with connected(edge.url) as connection:
        for _ in range(2):  # a body would be taken for the second answer
            await connection.send(request("HEAD", path))
            answer = await connection.answer("HEAD")
            assert (answer.status, answer.body) == (200, b"")
            assert answer.headers["content-type"] == "application/json"


async def test_native_grpc_has_the_same_limits_and_its_own_errors(
    edge: RunningEdge,
) -> None:
    async with grpc.aio.insecure_channel(
        edge.url.removeprefix("http://"), options=[("grpc.max_metadata_size", 256 * 1024)]
    ) as channel:
        models = models_pb2_grpc.ModelServiceStub(channel)
        ask_all = models_pb2.ListModelsRequest()
        metadata = (("x-filler", "a" * 50_000), ("x-token-bin", b"\0\xff"))
        assert (await models.ListModels(ask_all, metadata=metadata)).models
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await models.ListModels(ask_all, metadata=[(f"x-{n}", "a" * 14_000) for n in range(5)])
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "61440 bytes" in (refused.value.details() or "")
