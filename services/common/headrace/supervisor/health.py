"""Readiness of a process, and of the whole path from Envoy to a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx

from headrace.supervisor.plan.mesh_options import LOOPBACK, Role
from headrace.supervisor.state.failures import CanaryFailed
from headrace.supervisor.state.state_dir import StateDir

open_plain = partial(httpx.AsyncClient, trust_env=False)
_RETRY_S = 0.1
_PROBE_TIMEOUT_S = 2.0
CANARY_TIMEOUT_S = 30.0
_Canary = tuple[str, dict[str, Any]]
"""The path and the body of a request."""
_GENERATE: _Canary = ("/v1/completions", {"prompt": "Hello", "max_tokens": 1})
_RERANK: _Canary = ("/v1/rerank", {"query": "Hello", "documents": ["Hello"]})
_CANARY_COUNT = "headrace_gateway_canary_seconds_count"
_CLASSIFY: _Canary = ("/v1/classify", {"input": "Hello"})
_CANARY_REQUESTS = {
    "MODEL_TASK_EMBED": _RERANK,
    "MODEL_TASK_SCORE": _RERANK,
    "MODEL_TASK_CLASSIFY": _CLASSIFY,
}
"""By task; `_GENERATE` for all others."""


def health_url(role: str, ports: dict[str, int]) -> str | None:
    """Return the URL that answers 200 if the process is ready; None while its port is unknown."""
    port, path = {
        Role.NATS: (ports.get("http"), "healthz"),
        Role.ENVOY: (ports.get("admin"), "ready"),
    }.get(Role(role), (ports.get("metrics"), "readyz"))
    return None if port is None else f"http://{LOOPBACK}:{port}/{path}"


async def not_ready_reason(http: httpx.AsyncClient, url: str | None) -> str | None:
    """Return why a process is not ready, empty if that is unknown; None if it is ready."""
    if url is None:
        return ""
    try:
        answer = await http.get(url)
    except httpx.HTTPError:
        return ""
    return None if answer.status_code == httpx.codes.OK else error_text(answer)


async def wait_until_ready(
    state_dir: StateDir,
    name: str,
    *,
    other_than: int | None,
    on_reason: Callable[[str], None] = lambda _: None,
) -> None:
    """Wait until a process of a mesh is ready again.

    Args:
        other_than: the pid of a run that does not count.
        on_reason: called with each reason why it is not ready; empty if that is unknown.
    """
    async with httpx.AsyncClient(trust_env=False, timeout=_PROBE_TIMEOUT_S) as http:
        while True:
            now = state_dir.read_process(name)
            if now.pid not in (None, other_than):
                reason = await not_ready_reason(http, health_url(now.role, now.ports))
                if reason is None:
                    return
                on_reason(reason)
            await asyncio.sleep(_RETRY_S)


def error_text(answer: httpx.Response) -> str:
    """Return the reason in a failed probe's answer: JSON from nats-server, else plain text."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        # Further lines are details, which a process also gives when it is ready.
        return answer.text.strip().partition("\n")[0]


async def wait_for_canary(
    url: str,
    model: str,
    open_http: Callable[..., httpx.AsyncClient] = open_plain,
    *,
    within_s: float = CANARY_TIMEOUT_S,
) -> None:
    """Request one token from the public port until it comes.

    Args:
        open_http: called with `timeout`.

    Raises:
        CanaryFailed: it has not come within `within_s`; the text has the last answer.
    """
    failure: str | None = "no answer"
    try:
        async with (
            asyncio.timeout(within_s),
            open_http(timeout=within_s) as http,
        ):
            while (failure := await _send_canary(http, url, model)) is not None:
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise CanaryFailed(
            f"no token of {model} came through in {within_s:g} s; the last answer: {failure}"
        ) from None


async def wait_for_gateway_canary(
    metrics_ports: Sequence[int | None], *, within_s: float = CANARY_TIMEOUT_S
) -> None:
    """Wait until the canary of one of these gateways has had a token.

    Raises:
        CanaryFailed: there was none within `within_s`.
    """
    urls = [f"http://{LOOPBACK}:{port}/metrics" for port in metrics_ports if port is not None]
    try:
        async with (
            asyncio.timeout(within_s),
            httpx.AsyncClient(trust_env=False, timeout=_PROBE_TIMEOUT_S) as http,
        ):
            while not any([await _has_had_token(http, url) for url in urls]):
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise CanaryFailed(
            f"no token of a gateway's canary came through in {within_s:g} s; the gateways' logs "
            "have canary.failed"
        ) from None


async def _has_had_token(http: httpx.AsyncClient, url: str) -> bool:
    try:
        lines = (await http.get(url)).text.splitlines()
    except httpx.HTTPError:
        return False
    counts = (line.rpartition(" ")[2] for line in lines if line.startswith(_CANARY_COUNT))
    return any(float(count) > 0 for count in counts)


async def _send_canary(http: httpx.AsyncClient, url: str, model: str) -> str | None:
    """Return the answer that came instead of a token or a score; None if one came."""
    try:
        answer = await http.get(f"{url}/v2/models/{quote(model, safe='')}")
        if answer.status_code == httpx.codes.OK:
            path, body = _CANARY_REQUESTS.get(answer.json()["task"], _GENERATE)
            answer = await http.post(f"{url}{path}", json={"model": model, **body})
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__
    if answer.status_code == httpx.codes.OK:
        return None
    return f"{answer.status_code} {answer.text[:500]}"
