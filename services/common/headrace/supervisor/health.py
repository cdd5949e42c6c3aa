"""Whether a process is well, and the whole path with it."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import httpx

from headrace.supervisor.plan.mesh_options import LOOPBACK, Role
from headrace.supervisor.state.failures import CanaryFailed

_CANARY_EVERY_S = 0.1
CANARY_WITHIN_S = 30.0
_FOR_A_TOKEN = ("/v1/completions", {"prompt": "Hello", "max_tokens": 1})
_FOR_A_SCORE = ("/v1/rerank", {"query": "Hello", "documents": ["Hello"]})
_ASKS = {"MODEL_TASK_EMBED": _FOR_A_SCORE, "MODEL_TASK_SCORE": _FOR_A_SCORE}
"""By task: what a model that embeds or scores answers too."""


def health_url(role: str, ports: dict[str, int]) -> str | None:
    """What answers 200 if the process is well; None while its ports are unknown."""
    port, path = {
        Role.NATS: (ports.get("http"), "healthz"),
        Role.ENVOY: (ports.get("admin"), "ready"),
    }.get(Role(role), (ports.get("metrics"), "readyz"))
    return None if port is None else f"http://{LOOPBACK}:{port}/{path}"


async def is_ready(http: httpx.AsyncClient, url: str | None) -> bool:
    return await not_ready_reason(http, url) is None


async def not_ready_reason(http: httpx.AsyncClient, url: str | None) -> str | None:
    """What a process says that it lacks, empty where it says nothing; None if it is well."""
    if url is None:
        return ""
    try:
        answer = await http.get(url)
    except httpx.HTTPError:
        return ""
    return None if answer.status_code == httpx.codes.OK else error_text(answer)


def error_text(answer: httpx.Response) -> str:
    """What an answer complains of: nats-server writes JSON, the others plain text."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        # Further lines are details, which are there when it is well too.
        return answer.text.strip().partition("\n")[0]


async def wait_for_canary(url: str, model: str, *, within_s: float = CANARY_WITHIN_S) -> None:
    """Ask the public door for one token until it comes.

    Raises:
        CanaryFailed: not within `within_s`; the text has the last answer.
    """
    not_ready_reason: str | None = "no answer"
    try:
        async with (
            asyncio.timeout(within_s),
            httpx.AsyncClient(trust_env=False, timeout=within_s) as http,
        ):
            while (not_ready_reason := await _send_canary(http, url, model)) is not None:
                await asyncio.sleep(_CANARY_EVERY_S)
    except TimeoutError:
        raise CanaryFailed(
            f"no token of {model} came through in {within_s:g} s; the last answer: {not_ready_reason}"
        ) from None


async def _send_canary(http: httpx.AsyncClient, url: str, model: str) -> str | None:
    """What was answered instead of a token, or of a vector; None if one came."""
    try:
        answer = await http.get(f"{url}/v2/models/{quote(model, safe='')}")
        if answer.status_code == httpx.codes.OK:
            path, ask = _ASKS.get(answer.json()["task"], _FOR_A_TOKEN)
            answer = await http.post(f"{url}{path}", json={"model": model, **ask})
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__
    if answer.status_code == httpx.codes.OK:
        return None
    return f"{answer.status_code} {answer.text[:500]}"
