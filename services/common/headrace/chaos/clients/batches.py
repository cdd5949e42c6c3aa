"""A client that sends requests as the rows of a batch, and records what its files have of each.

    POST /v1/files, POST /v1/batches    batch_7, in_progress    recorder.started("batch_7_1"), ...
    GET /v1/batches/batch_7             503: control was killed; again after a moment
    GET /v1/batches/batch_7             completed
    GET /v1/files/{output}/content      row 0: its text         recorder.delta(...), finished()
    GET /v1/files/{errors}/content      row 1: its error        recorder.failed(...)

A row that is in both files, or twice in one, has a second end; one that is in none has none.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex
from typing import Any

import httpx

from headrace.chaos.requests import ChaosRequest, openai_body
from headrace.chaos.stream_recorder import StreamRecorder
from headrace.rpc.tls import Trust

_WITHIN_S = 300.0
"""Longest time that a batch may take, under all faults."""
_SILENCE_S = 20.0
_PAUSE_S = 0.5
_ENDPOINT = "/v1/completions"
_FINAL = ("completed", "failed", "expired", "cancelled")

Row = tuple[ChaosRequest, StreamRecorder]


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BatchClient:
    """Runs one batch after another; whatever may be repeated is, until the mesh answers."""

    def __init__(
        self, url: str, model: str, *, api_key: str | None = None, trust: Trust | None = None
    ) -> None:
        self._url, self._model = url, model
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._ca, self._server_name = None, ""
        if trust is not None:
            self._ca, self._server_name = trust["ca_file"], trust["server_name"]

    async def send(self, rows: Sequence[Row]) -> None:
        """Send requests as a batch, and record what became of each once it has ended."""
        try:
            async with asyncio.timeout(_WITHIN_S), self._connections() as http:
                await self._run(http, rows)
        except _Refused as refusal:
            for _, recorder in rows:
                recorder.rejected(refusal.code, str(refusal))
        except TimeoutError:
            for _, recorder in rows:
                recorder.broken(f"its batch did not end within {_WITHIN_S:g} s")

    async def _run(self, http: httpx.AsyncClient, rows: Sequence[Row]) -> None:
        batch = await self._create(http, [request for request, _ in rows])
        for line, (_, recorder) in enumerate(rows, 1):
            recorder.started(f"{batch['id']}_{line}")
        path = f"/v1/batches/{batch['id']}"
        while batch["status"] not in _FINAL:
            await asyncio.sleep(_PAUSE_S)
            batch = (await _answer(lambda: http.get(path))).json()
        if batch["status"] != "completed":
            for _, recorder in rows:
                recorder.broken(f"batch {batch['id']} is {batch['status']}")
            return
        for name, record in (("output_file_id", _record_answer), ("error_file_id", _record_error)):
            for each in await _lines(http, batch[name]):
                record(each, rows[int(each["custom_id"])][1])

    async def _create(
        self, http: httpx.AsyncClient, requests: Sequence[ChaosRequest]
    ) -> dict[str, Any]:
        lines = (
            {
                "custom_id": str(number),
                "method": "POST",
                "url": _ENDPOINT,
                "body": openai_body(request, self._model),
            }
            for number, request in enumerate(requests)
        )
        file = {"file": ("rows.jsonl", "\n".join(map(json.dumps, lines)).encode())}
        purpose = {"purpose": "batch"}
        uploaded = await _answer(lambda: http.post("/v1/files", files=file, data=purpose))
        body = {
            "input_file_id": uploaded.json()["id"],
            "endpoint": _ENDPOINT,
            "completion_window": "24h",
        }
        # A batch whose answer was lost is the one that the next call finds.
        once = {"idempotency-key": token_hex(16)}
        made = await _answer(lambda: http.post("/v1/batches", json=body, headers=once))
        return dict(made.json())

    def _connections(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            base_url=self._url,
            headers=self._headers,
            verify=ssl.create_default_context(cafile=self._ca),
            timeout=_SILENCE_S,
            trust_env=False,
        )
        if self._server_name:
            client.event_hooks = {"request": [self._expect_name]}
        return client

    async def _expect_name(self, request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = self._server_name


async def _answer(send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Return the answer of a call that may be repeated, once there is one.

    Raises:
        _Refused: the mesh refuses it for good.
    """
    while True:
        try:
            response = await send()
        except httpx.TransportError:
            pass  # Its gateway, control or the broker was killed.
        else:
            if response.is_success:
                return response
            if response.status_code < 500 and response.status_code != 429:
                raise _refusal(response)
        await asyncio.sleep(_PAUSE_S)


def _refusal(response: httpx.Response) -> _Refused:
    try:
        error = response.json()["error"]
        return _Refused(str(error["code"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return _Refused(str(response.status_code), response.text[:200])


async def _lines(http: httpx.AsyncClient, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    content = await _answer(lambda: http.get(f"/v1/files/{file_id}/content"))
    return [json.loads(line) for line in content.text.splitlines()]


def _record_answer(line: dict[str, Any], recorder: StreamRecorder) -> None:
    body = line["response"]["body"]
    for choice in body["choices"]:
        if choice["text"]:
            recorder.delta(choice["index"], choice["text"])
        recorder.choice_finished(choice["index"], choice["finish_reason"])
    recorder.usage(body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])
    recorder.finished()


def _record_error(line: dict[str, Any], recorder: StreamRecorder) -> None:
    error = line["error"] or line["response"]["body"]["error"]
    recorder.failed(str(error["code"]), str(error["message"]))
