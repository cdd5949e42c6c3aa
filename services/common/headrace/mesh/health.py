"""Whether a process is well, and the whole path with it."""

from __future__ import annotations

import asyncio

import httpx

from headrace.mesh.failures import CanaryLost
from headrace.mesh.plan import Role
from headrace.mesh.program import LOOPBACK

_CANARY_EVERY_S = 0.1
CANARY_WITHIN_S = 30.0


def health_url(role: str, ports: dict[str, int]) -> str | None:
    """What answers 200 if the process is well; None while its ports are unknown."""
    port, path = {
        Role.NATS: (ports.get("http"), "healthz"),
        Role.ENVOY: (ports.get("admin"), "ready"),
    }.get(Role(role), (ports.get("metrics"), "readyz"))
    return None if port is None else f"http://{LOOPBACK}:{port}/{path}"


async def is_well(http: httpx.AsyncClient, url: str | None) -> bool:
    if url is None:
        return False
    try:
        return (await http.get(url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


async def canary_comes_through(url: str, model: str, *, within_s: float = CANARY_WITHIN_S) -> None:
    """Ask the public door for one token until it comes.

    Raises:
        CanaryLost: not within `within_s`; the text has the last answer.
    """
    complaint: str | None = "no answer"
    try:
        async with (
            asyncio.timeout(within_s),
            httpx.AsyncClient(trust_env=False, timeout=within_s) as http,
        ):
            while (complaint := await _send_canary(http, url, model)) is not None:
                await asyncio.sleep(_CANARY_EVERY_S)
    except TimeoutError:
        raise CanaryLost(
            f"no token of {model} came through in {within_s:g} s; the last answer: {complaint}"
        ) from None


async def _send_canary(http: httpx.AsyncClient, url: str, model: str) -> str | None:
    """What was answered instead of a token; None if one came."""
    body = {"model": model, "prompt": "Hello", "max_tokens": 1}
    try:
        answer = await http.post(f"{url}/v1/completions", json=body)
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__
    if answer.status_code == httpx.codes.OK:
        return None
    return f"{answer.status_code} {answer.text[:500]}"
