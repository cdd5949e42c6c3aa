"""gRPC-Web over an HTTP client: one message, in the binary form or as base64, and its answer.

flags  length      payload
00     00 00 00 05 …         a message
80     00 00 00 0f …         trailers: "grpc-status:0\\r\\n"
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text"
_HEAD_BYTES, _TRAILERS = 5, 0x80


@dataclass
class WebAnswer:
    """What a call was answered; `status` is a gRPC code."""

    http_status: int
    headers: httpx.Headers
    messages: list[bytes] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return int(self._value("grpc-status"))

    @property
    def message(self) -> str:
        return self._value("grpc-message")

    @property
    def details(self) -> Status:
        """Return google.rpc.Status; empty where the answer has none."""
        packed = self._value("grpc-status-details-bin")
        return Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))

    def _value(self, name: str) -> str:
        return str(self.trailers.get(name, self.headers.get(name, "")))


def framed(message: Message) -> bytes:
    """Return the body of a call with this message."""
    data = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


async def call(
    http: httpx.AsyncClient,
    method: str,
    message: Message,
    headers: dict[str, str] | None = None,
    *,
    kind: str = BINARY,
) -> WebAnswer:
    """Call `method`, as headrace.v1.ModelService/ListModels, and read its answer to the end."""
    body = framed(message)
    content = base64.b64encode(body) if kind == TEXT else body
    sent = {"content-type": kind, "accept": kind, "x-grpc-web": "1"} | (headers or {})
    answer = await http.post(f"/{method}", content=content, headers=sent)
    found = WebAnswer(answer.status_code, answer.headers)
    read = _unquoted(answer.content) if kind == TEXT else answer.content
    for flags, payload in frames(read):
        if flags & _TRAILERS:
            lines = (line.partition(":") for line in payload.decode().splitlines())
            found.trailers = {name: value.strip() for name, _, value in lines}
        else:
            found.messages.append(payload)
    return found


def frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield flags and payload of each whole frame."""
    while len(body) >= _HEAD_BYTES:
        end = _HEAD_BYTES + int.from_bytes(body[1:_HEAD_BYTES], "big")
        yield body[0], body[_HEAD_BYTES:end]
        body = body[end:]


def _unquoted(text: bytes) -> bytes:
    """Decode pieces of base64 one after the other, each with its own padding."""
    parts = text.decode().replace("=", "= ").split()
    joined, piece = b"", ""
    for part in parts:
        piece = part if part.strip("=") else piece + part
        joined += base64.b64decode(piece + "=" * (-len(piece) % 4)) if part.strip("=") else b""
    return joined
