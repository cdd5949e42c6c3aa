"""The errors that Envoy itself answers with, in the format of each path's API. Pure.

`mappers` returns the list of Envoy's `local_reply_config`, of which Envoy uses the first that
matches. So the errors of one format stand together, narrow ones first, and OpenAI's format, which
is also that of unknown paths, stands last. For a body of 20 MiB, for example:

    path                       format             mapper's answer
    gRPC                       message of call    grpc-status 3, "the request body is larger than …"
    /v2/rerank                 Cohere's           413 {"message": "the request body is larger …"}
    /embed                     TEI's              413 {"error": …, "error_type": "Validation"}
    /v2/models/valley:generate google.rpc.Status  413 {"code": 3, "message": …, "details": […]}
    /v1/messages               Anthropic's        413 {"type": "error", "error": {…}, …}
    /v1/chat/completions       OpenAI's           413 {"error": {"code": "body_too_large", …}}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.supervisor.servers.rest_paths import RestPath

Json = dict[str, Any]

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_ADMIN_BODY_BYTES = 24 * 1024
"""Of a REST call of the administration: control gets it as a header too, and checks its names."""
MAX_HEADER_BYTES = 60 * 1024
"""Request line and headers together."""

_BODY = "%LOCAL_REPLY_BODY%"
_REQUEST = "%REQ(:METHOD)% %PATH(NQ:ORIG_OR_PATH):200%"
_GRPC_TYPE = "application/grpc"
GATEWAY, CONTROL, WEB = "gateway", "control", "web"
"""Clusters of Envoy."""
PAGE_PATHS = "/ui([/?].*)?"
"""Of the page and its API: a regular expression."""
ADMIN_PREFIX = "/v2/admin/"
CONTROL_SERVICES = (
    "headrace.v1.FileService",
    "headrace.v1.BatchService",
    "headrace.v1.OrganizationService",
)
"""Those besides the administration that control serves."""
CONTROL_CALLS = "/(headrace[.]admin[.]v1[.].*|({})/.*)".format(
    "|".join(name.replace(".", "[.]") for name in CONTROL_SERVICES)
)
"""Of native and transcoded calls: a regular expression of their paths."""
FILES_PATH = "/v1/files"
"""Of uploads too, whose bodies control gets as they come."""
COHERE_PATH = "/v2/rerank"
ANTHROPIC_PREFIX, ANTHROPIC_HEADER = "/v1/messages", "anthropic-version"
"""Of Anthropic's API; its clients send the header on every path."""
TEI_PATHS = ("/embed", "/embed_all", "/embed_sparse", "/predict", "/similarity")
"""Of text-embeddings-inference."""
_CEL = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
ANTHROPIC_OVERLOADED = 529
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    504: "timeout_error",
}
_INVALID_ARGUMENT, _DEADLINE_EXCEEDED, _NOT_FOUND = 3, 4, 5
_PERMISSION_DENIED, _RESOURCE_EXHAUSTED, _UNIMPLEMENTED, _UNAVAILABLE = 7, 8, 12, 14
_UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long Envoy waits for a request, and for its answer."""

    headers_s: float = 10.0
    """For all headers of a request, from its first byte."""
    body_idle_s: float = 30.0
    """Between two pieces of a body. Too small: uploads over slow connections are cut. Too large:
    a client that sends half a body holds a connection and a buffer for so long."""
    request_s: float = 3600.0
    """For a whole request with its body: a file of 200 MiB at 58 kB/s. Too small: files are cut.
    Too large: a client that sends a byte now and then holds a connection for so long."""
    stream_idle_s: float = 3600.0
    """Between two pieces of an answer, and before its first. Longer than a gateway lets a request
    run: one that waits in its lane without streaming is silent for all that time."""
    connection_idle_s: float = 620.0
    """Without a request. Longer than the 600 s of most load balancers: of the two ends of a
    kept-alive connection, the client has to close first."""


@dataclass(frozen=True, slots=True)
class _Error:
    status: int
    message: str
    code: str
    """The reason, in lower case; OpenAI's `code`."""
    grpc_code: int
    details: str = ""
    """Envoy's name of the error; empty: any with this status."""
    and_above: bool = False
    """Whether higher statuses match too."""
    retry: bool = False


_INVALID_HTTP = {
    "missing_host_header": "the Host header is missing",
    "path_normalization_failed": "the path has a fragment (#), an escaped NUL or a broken escape",
    "http.invalid_authority": "the Host header is not a host name with an optional port",
    "http1.invalid_scheme": "the URL of the request line is not one of http or https",
    "http1.invalid_characters": "a header has a control character",
    "http1.content_length_and_chunked_not_allowed": (
        "it has both Content-Length and Transfer-Encoding; send one of them"
    ),
    "http1.codec_error": (
        "its request line, a header, Content-Length or the length of a chunk is malformed"
    ),
}
"""By Envoy's name of the error."""


_TOO_LARGE = f"the request body is larger than {MAX_BODY_BYTES} bytes"
_ADMIN_TOO_LARGE = f"an administration body may have {MAX_ADMIN_BODY_BYTES} bytes"


def _errors(unknown_path: str, too_large: str, server: str, timeouts: Timeouts) -> Iterator[_Error]:
    yield _Error(401, _BODY, "invalid_api_key", _UNAUTHENTICATED)
    yield _Error(403, _BODY, "permission_denied", _PERMISSION_DENIED)
    yield _Error(404, unknown_path, "unknown_path", _NOT_FOUND)
    too_slow = (
        "the request did not arrive: its headers have to come within "
        f"{timeouts.headers_s:g} s, something of its body every {timeouts.body_idle_s:g} s, "
        f"and all of it within {timeouts.request_s:g} s"
    )
    yield _Error(408, too_slow, "request_timeout", _DEADLINE_EXCEEDED)
    yield _Error(413, too_large, "body_too_large", _INVALID_ARGUMENT)
    yield _Error(415, _BODY, "unsupported_content_encoding", _INVALID_ARGUMENT)
    headers_too_large = (
        f"the request line and headers are larger than {MAX_HEADER_BYTES} bytes, or far too many"
    )
    yield _Error(431, headers_too_large, "headers_too_large", _RESOURCE_EXHAUSTED)
    for details, fact in _INVALID_HTTP.items():
        message = f"the request is not valid HTTP: {fact}"
        yield _Error(400, message, "invalid_http", _INVALID_ARGUMENT, details)
    not_chunked = "Transfer-Encoding is not understood; the only one is chunked"
    yield _Error(501, not_chunked, "invalid_http", _UNIMPLEMENTED)
    timed_out = f"the request's time ran out: {_BODY}"
    yield _Error(504, timed_out, "deadline_exceeded", _DEADLINE_EXCEEDED)
    unreachable = f"no {server} could be reached: {_BODY}"
    code = f"{server}_unavailable"
    yield _Error(500, unreachable, code, _UNAVAILABLE, and_above=True, retry=True)
    yield _Error(400, _BODY, "invalid_request", _INVALID_ARGUMENT, and_above=True)


def mappers(paths: Sequence[RestPath], timeouts: Timeouts) -> list[Json]:
    """Return all mappers, for an Envoy that serves these paths."""
    admin = [path for path in paths if path.path.startswith(ADMIN_PREFIX)]
    native = [path for path in paths if path.path.startswith("/v2/") and path not in admin]
    others = [path for path in paths if not path.path.startswith("/v2/")]
    anthropic = [path for path in paths if path.path.startswith((ANTHROPIC_PREFIX, "/v1/models"))]
    no_path = f"there is no {_REQUEST}"
    native_list = f"{_list(native)}; and the administration API: GET {ADMIN_PREFIX}tenants"
    openai_list = f"{_list(others)}; and the native API: GET /v2/models"
    formats = (
        (_all_of(_NATIVE_GRPC, _on_path(_matching(CONTROL_CALLS))), _grpc, CONTROL, no_path),
        (_NATIVE_GRPC, _grpc, GATEWAY, no_path),
        (_on_path(_exactly(COHERE_PATH)), _cohere, GATEWAY, f"{no_path}; it is a POST"),
        (_on_path(_exactly(f"({'|'.join(TEI_PATHS)})")), _tei, GATEWAY, f"{no_path}; it is a POST"),
        (_ANTHROPIC, _anthropic, GATEWAY, f"{no_path}; {_list(anthropic)}"),
        (_on_path({"prefix": ADMIN_PREFIX}), _status, CONTROL, f"{no_path}; {_list(admin)}"),
        (_on_path({"prefix": "/v2/"}), _status, GATEWAY, f"{no_path}; {native_list}"),
        (
            _on_path(_matching(_control_paths(others))),
            _openai,
            CONTROL,
            f"{no_path}; {openai_list}",
        ),
        (_on_path(_matching(PAGE_PATHS)), _openai, WEB, no_path),
        (None, _openai, GATEWAY, f"{no_path}; {openai_list}"),
    )
    return [
        _mapper(condition, error) | formatted(error)
        for condition, formatted, server, unknown_path in formats
        for error in _errors(unknown_path, _too_large(formatted, server), server, timeouts)
    ]


def _too_large(formatted: Callable[[_Error], Json], server: str) -> str:
    return _ADMIN_TOO_LARGE if (formatted, server) == (_status, CONTROL) else _TOO_LARGE


def _list(paths: Sequence[RestPath]) -> str:
    return f"there are: {', '.join(map(str, paths))}"


def _mapper(condition: Json | None, error: _Error) -> Json:
    comparison = {
        "op": "GE" if error.and_above else "EQ",
        "value": {"default_value": error.status, "runtime_key": "headrace.local_reply"},
    }
    filters: list[Json] = [{"status_code_filter": {"comparison": comparison}}]
    if condition is not None:
        filters.append(condition)
    if error.details:
        expression = f"response.code_details == {json.dumps(error.details)}"
        cel = {"@type": _CEL, "expression": expression}
        name = "envoy.access_loggers.extension_filters.cel"
        filters.append({"extension_filter": {"name": name, "typed_config": cel}})
    chosen = filters[0] if len(filters) == 1 else {"and_filter": {"filters": filters}}
    retry = [_header("retry-after", "1")] if error.retry else []
    return {"filter": chosen, "headers_to_add": retry}


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "ADD_IF_ABSENT"}


def _has_header(name: str, condition: Json) -> Json:
    return {"header_filter": {"header": {"name": name, **condition}}}


def _on_path(match: Json) -> Json:
    """Match a path as requested, and one that has been transcoded since."""
    named = ("x-envoy-original-path", ":path")
    return {"or_filter": {"filters": [_has_header(n, {"string_match": match}) for n in named]}}


def _exactly(path: str) -> Json:
    return _matching(rf"{path}(\?.*)?")


def _matching(regex: str) -> Json:
    return {"safe_regex": {"regex": regex}}


def _control_paths(paths: Sequence[RestPath]) -> str:
    """Return the regular expression of control's paths, by their first two parts: /v1/files."""
    roots = {"/".join(p.path.split("/")[:3]) for p in paths if p.service in CONTROL_SERVICES}
    return rf"({'|'.join(sorted(roots))})([/?].*)?"


def _all_of(*conditions: Json) -> Json:
    return {"and_filter": {"filters": list(conditions)}}


_NATIVE_GRPC = _all_of(
    _has_header("content-type", {"string_match": {"prefix": _GRPC_TYPE}}),
    # Transcoded calls look like native ones by then, but have their original path.
    _has_header("x-envoy-original-path", {"present_match": False}),
)


_ANTHROPIC = {
    "or_filter": {
        "filters": [
            _on_path(_matching(rf"{ANTHROPIC_PREFIX}([/?].*)?")),
            _has_header(ANTHROPIC_HEADER, {"present_match": True}),
        ]
    }
}


def _grpc(error: _Error) -> Json:
    """Return plain text, which Envoy makes the call's message."""
    retry = [_header("retry-after", "1")] if error.retry else []
    return {
        "headers_to_add": [*retry, _header("grpc-status", str(error.grpc_code))],
        "body_format_override": {"text_format_source": {"inline_string": error.message}},
    }


def _cohere(error: _Error) -> Json:
    return _json({"message": error.message})


def _tei(error: _Error) -> Json:
    kind = "Validation" if error.status < 500 else "Overloaded" if error.retry else "Backend"
    return _json({"error": error.message, "error_type": kind})


def _anthropic(error: _Error) -> Json:
    kind = _ANTHROPIC_TYPES.get(error.status) or (
        "api_error" if error.status > 500 else "invalid_request_error"
    )
    if error.retry:
        kind = "overloaded_error"
    body = {"type": kind, "message": error.message}
    reply = _json({"type": "error", "error": body, "request_id": "%REQ(X-REQUEST-ID)%"})
    return reply | ({"status_code": ANTHROPIC_OVERLOADED} if error.retry else {})


def _status(error: _Error) -> Json:
    """Return google.rpc.Status."""
    details: list[Json] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": error.code.upper(),
            "domain": "headrace.dev",
        }
    ]
    if error.retry:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        details.append({"@type": kind, "retryDelay": "1s"})
    return _json({"code": error.grpc_code, "message": error.message, "details": details})


def _openai(error: _Error) -> Json:
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    body = {"message": error.message, "type": kind, "param": None, "code": error.code}
    return _json({"error": body})


def _json(body: Json) -> Json:
    override = {"content_type": "application/json", "json_format": body}
    return {"body_format_override": override}
