"""An HTTP server that answers with server-sent events; with retries and a circuit breaker.

Nothing here logs a body or a key.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import SecretStr

from headrace_worker.engine.backends.circuit_breaker import CircuitBreaker
from headrace_worker.engine.backends.remote_engine import BackendError

log = logging.getLogger(__name__)
# It logs every request at "info".
logging.getLogger("httpx").setLevel(logging.WARNING)

CONNECT_S = 5.0
FIRST_BACKOFF_S = 0.25
"""Before the first retry if the server sends no Retry-After; it doubles with each retry."""
MAX_EVENT_BYTES = 1 << 20
"""Of one event, and of an error's body."""
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""


class UpstreamUnavailable(BackendError):
    """The server is unreachable, overloaded or broken; the request is not at fault."""


class UpstreamRejected(BackendError):
    """The server answers, and rejects the request."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Address of the server, and how to retry."""

    url: str
    """Paths are appended to it: http://host:8000/v1."""
    api_key: SecretStr | None = None
    timeout_s: float = 60.0
    """The longest silence, and the longest Retry-After that is obeyed."""
    retries: int = 2
    """Retries of a request before its first event."""
    failures: int = 5
    """Failures in a row that open the circuit breaker."""
    pause_s: float = 5.0
    """Between probes while the breaker is open."""
    probe_path: str = "/models"
    uses_proxy: bool = True
    """Whether the environment's proxies are used."""


class Upstream:
    """One server. Made and used on one event loop; only `unavailable_reason` is for any thread."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        headers = {}
        if settings.api_key is not None:
            headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        self._client = httpx.AsyncClient(
            base_url=settings.url.rstrip("/") + "/",
            headers=headers,
            trust_env=settings.uses_proxy,
            timeout=httpx.Timeout(settings.timeout_s, connect=CONNECT_S),
            # Requests are bounded by the engine's slots.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        self._breaker = CircuitBreaker(failures=settings.failures)
        self._recovery: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return self._settings.url

    @property
    def unavailable_reason(self) -> str:
        unavailable_reason = self._breaker.unavailable_reason
        return f"{self.url} is unavailable: {unavailable_reason}" if unavailable_reason else ""

    async def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at a path; sent once, even if the breaker is open, and not
        counted.

        Raises:
            UpstreamUnavailable: the server is unreachable, or returns no JSON object.
            UpstreamRejected: it rejects the request.
        """
        try:
            response = await self._client.get(path.lstrip("/"))
        except httpx.HTTPError as error:
            raise self._failure(error) from error
        if response.status_code >= 400:
            raise _error_for(self.url, response.status_code, response.content)
        return _object(self.url, response.content)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Post a JSON body and yield the events of the answer, up to [DONE] or its end.

        Raises:
            UpstreamUnavailable: unreachable, also after retries, or the stream broke off.
            UpstreamRejected: it rejects the request, or ends the stream with an error.
        """
        async with self._counting_failures(), self._open_response(path, body) as response:
            async for data in _events(self.url, response.aiter_bytes()):
                self._breaker.record_success()
                if data == b"[DONE]":
                    return
                event = _object(self.url, data)
                if "error" in event:
                    raise UpstreamRejected(f"{self.url} ended it: {_message(event)}")
                yield event

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post a JSON body and return a JSON object. Raises and retries as `events` does."""
        async with self._counting_failures(), self._open_response(path, body) as response:
            return _object(self.url, await response.aread())

    @asynccontextmanager
    async def _counting_failures(self) -> AsyncIterator[None]:
        """Count failures in the breaker, and raise them as our own errors."""
        try:
            yield
        except httpx.HTTPError as error:
            failure = self._failure(error)
            self._count(failure)
            raise failure from error
        except UpstreamUnavailable as failure:
            self._count(failure)
            raise

    @asynccontextmanager
    async def _open_response(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncIterator[httpx.Response]:
        """Yield the response once its status is good, with retries."""
        pause_s = FIRST_BACKOFF_S
        for left in range(self._settings.retries, -1, -1):
            request = self._client.build_request("POST", path.lstrip("/"), json=body)
            try:
                response = await self._client.send(request, stream=True)
            except httpx.TransportError as error:
                if left == 0:
                    raise
                log.warning("upstream.unreachable", extra={"url": self.url, "error": repr(error)})
                await asyncio.sleep(pause_s)
            else:
                try:
                    if response.status_code < 400:
                        yield response
                        return
                    wanted_s = await self._pause_after(response, left)
                finally:
                    await response.aclose()
                await asyncio.sleep(pause_s if wanted_s is None else wanted_s)
            pause_s *= 2

    async def _pause_after(self, response: httpx.Response, left: int) -> float | None:
        """Return the seconds of Retry-After; None if there is none.

        Raises:
            BackendError: a retry would not help.
        """
        content = await _bounded(response.aiter_bytes())
        error = _error_for(self.url, response.status_code, content)
        wanted_s = _retry_after_s(response.headers.get("retry-after", ""))
        too_long = wanted_s is not None and wanted_s > self._settings.timeout_s
        if left == 0 or too_long or isinstance(error, UpstreamRejected):
            raise error
        log.warning("upstream.busy", extra={"url": self.url, "status": response.status_code})
        return wanted_s

    def _failure(self, error: httpx.HTTPError) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            f"{self.url} is unreachable: {type(error).__name__} {error}".strip()
        )

    def _count(self, failure: UpstreamUnavailable) -> None:
        if self._breaker.record_failure(str(failure)):
            log.error("upstream.circuit_opened", extra={"url": self.url, "reason": str(failure)})
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def _recover(self) -> None:
        """Probe until the server answers, even with a rejection."""
        while self._breaker.is_open:
            await asyncio.sleep(self._settings.pause_s)
            try:
                await self.get(self._settings.probe_path)
            except UpstreamUnavailable:
                continue
            except UpstreamRejected:
                pass
            self._breaker.record_success()
        log.info("upstream.circuit_closed", extra={"url": self.url})

    async def close(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
        await self._client.aclose()


async def _events(url: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of each event. Only LF ends a line: text may contain other line ends."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise UpstreamUnavailable(f"{url} sent an event of more than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


async def _bounded(chunks: AsyncIterator[bytes]) -> bytes:
    content = b""
    async for chunk in chunks:
        content += chunk
        if len(content) > MAX_EVENT_BYTES:
            break
    return content


def _object(url: str, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UpstreamUnavailable(f"{url} returns no JSON object: {data[:80]!r}")
    return found


def _error_for(url: str, status: int, content: bytes) -> BackendError:
    try:
        message = _message(json.loads(content))
    except ValueError:
        message = content[:200].decode(errors="replace")
    kind = UpstreamUnavailable if status in _PASSING else UpstreamRejected
    return kind(f"{url} answers {status}: {message}")


def _message(event: Any) -> str:
    """Return the message of OpenAI's error body, or the whole body of another's."""
    error = event.get("error", event) if isinstance(event, dict) else event
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:500]


def _retry_after_s(text: str) -> float | None:
    """Parse Retry-After, seconds or a date; None if it is neither."""
    with suppress(ValueError):
        return max(0.0, float(text))
    with suppress(ValueError):
        at = parsedate_to_datetime(text)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return None
