"""Every method and path x every kind of caller who may not call it, and one who may.

The rows come from the descriptors that Envoy transcodes by: a method without a sample, or without
the option `access`, fails. Calls go through a real Envoy to a real gateway and control, as REST and
as native gRPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headrace.auth.scopes import ADMIN, ADMIN_READS, BATCHES, PUBLIC, SIGNED_IN
from helpers.access_matrix import Method, methods
from helpers.access_samples import samples
from helpers.access_world import World, make_world
from helpers.running_mesh import RunningMesh, start, stop

METHODS = {method.name: method for method in methods()}
STATUSES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
}
VIEWER_SCOPES = {"models:read", "usage:read", SIGNED_IN, PUBLIC}
WITHOUT_A_VALID_KEY = (
    "no key",
    "unknown key",
    "malformed key",
    "foreign format",
    "expired key",
    "revoked key",
    "unknown cookie",
    "cookie without same origin",
    "cookie from another origin",
)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    running = start(
        tmp_path_factory.mktemp("matrix"),
        *("--engine", "scripted", "--auth", "keys"),
        # The matrix fails more often in a second than a person does in a year.
        *("--set", "gateway.failed_attempts_per_minute=1000000"),
        *("--set", "control.failed_attempts_per_minute=1000000"),
    )
    yield running
    stop(running)


@pytest.fixture(scope="module")
def world(mesh: RunningMesh) -> World:
    return asyncio.run(make_world(mesh, Path(mesh.folder, "admin.key").read_text().strip()))


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=8)
    async with httpx.AsyncClient(
        base_url=world.url, trust_env=False, timeout=30, limits=limits
    ) as client:
        yield client


async def rest_statuses(
    http: httpx.AsyncClient, method: Method, request: Mapping[str, Any], headers: dict[str, str]
) -> dict[str, int]:
    """Return the status of the call by each of the method's paths."""
    found = {}
    for verb, path, body in method.http_calls(request):
        async with http.stream(verb, path, json=body, headers=headers) as answer:
            found[f"{verb} {path}"] = answer.status_code
    return found


async def grpc_status(
    channel: grpc.aio.Channel, method: Method, request: Mapping[str, Any], headers: dict[str, str]
) -> grpc.StatusCode:
    """Return the status of the native call, or OK once a message has come.

    What answers with an HttpBody has its HTTP status in the metadata.
    """
    data, metadata = method.message(request), tuple(headers.items())
    kind: Any = channel.unary_stream if method.streams else channel.unary_unary
    call = kind(method.name)(data, metadata=metadata, timeout=20)
    try:
        await (anext(aiter(call)) if method.streams else call)
    except StopAsyncIteration:
        pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    http_status = dict(await call.initial_metadata()).get("x-hr-status", "200")
    call.cancel()
    return STATUSES.get(int(http_status), grpc.StatusCode.OK)


def test_every_method_says_who_may_call_it() -> None:
    missing = [name for name, method in METHODS.items() if not method.access.scope]
    assert missing == []


def test_every_method_has_a_sample() -> None:
    known = samples(file="", request="", conversation="", key="", person="", session="")
    assert {name.rpartition(".")[2] for name in METHODS} == set(known)


@pytest.mark.parametrize("caller", WITHOUT_A_VALID_KEY)
async def test_without_a_valid_key_only_public_methods_answer(
    world: World, http: httpx.AsyncClient, caller: str
) -> None:
    wrong = {}
    headers = world.callers[caller]
    # Envoy refuses what a page of another origin sends without its browser's preflight.
    refusals = (401, 403) if "origin" in headers else (401,)
    for method in METHODS.values():
        is_public = method.access.scope == PUBLIC
        request = world.sample(method.name).request
        for call, status in (await rest_statuses(http, method, request, headers)).items():
            # A sign-in with a wrong key, or an invitation's, is itself a 401.
            if (status in refusals) == is_public and not _is_a_sign_in(method):
                wrong[call] = status
    assert wrong == {}


@pytest.mark.parametrize("caller", WITHOUT_A_VALID_KEY)
async def test_without_a_valid_key_only_public_methods_answer_native_calls(
    world: World, caller: str
) -> None:
    wrong = {}
    async with _channel(world) as channel:
        for method in METHODS.values():
            sample = world.sample(method.name).request
            status = await grpc_status(channel, method, sample, world.callers[caller])
            is_refused = status is grpc.StatusCode.UNAUTHENTICATED
            if is_refused == (method.access.scope == PUBLIC) and not _is_a_sign_in(method):
                wrong[method.name] = status
    assert wrong == {}


@pytest.mark.parametrize("caller", ["viewer", "wrong scope", "admin"])
async def test_a_caller_may_do_what_its_scopes_say_and_no_more(
    world: World, http: httpx.AsyncClient, caller: str
) -> None:
    wrong: dict[str, Any] = {}
    headers = world.callers[caller]
    async with _channel(world) as channel:
        for method in METHODS.values():
            may = _may(caller, method)
            request = world.sample(method.name).request
            if may is None:
                continue
            for call, status in (await rest_statuses(http, method, request, headers)).items():
                if (status == 403) == may or (status == 401 and not _is_a_sign_in(method)):
                    wrong[call] = status
            native = await grpc_status(channel, method, request, headers)
            if (native is grpc.StatusCode.PERMISSION_DENIED) == may:
                wrong[method.name] = native
    assert wrong == {}


def _may(caller: str, method: Method) -> bool | None:
    """Return whether this caller's scopes allow a method; None if that depends on the request."""
    scope, operator_only = method.access.scope, method.access.operator_only
    if scope == PUBLIC:
        return True
    if scope == SIGNED_IN:
        return None
    if caller == "viewer":
        return scope in VIEWER_SCOPES
    if caller == "wrong scope" and scope == BATCHES:
        return True
    if method.name.endswith("/CreateMember"):
        # Of its own tenant a 403 that says to invite the person; of another one a 404.
        return False
    return caller == "admin" and scope in {ADMIN, *ADMIN_READS} and not operator_only


async def test_who_may_call_a_method_reaches_it(world: World, http: httpx.AsyncClient) -> None:
    wrong: dict[str, Any] = {}
    async with _channel(world) as channel:
        for method in METHODS.values():
            is_administration = method.access.scope in (ADMIN, SIGNED_IN)
            headers = world.callers["operator" if is_administration else "user"]
            request = world.sample(method.name).request
            for call, status in (await rest_statuses(http, method, request, headers)).items():
                if status in (401, 403, 500, 502, 503) and not _is_a_sign_in(method):
                    wrong[call] = status
            native = await grpc_status(channel, method, request, headers)
            if native in (STATUSES[401], STATUSES[403]) and not _is_a_sign_in(method):
                wrong[method.name] = native
    assert wrong == {}


async def test_another_tenants_resources_are_not_found(
    world: World, http: httpx.AsyncClient
) -> None:
    wrong: dict[str, Any] = {}
    async with _channel(world) as channel:
        for method in METHODS.values():
            foreign = world.sample(method.name).foreign
            if foreign is None or method.access.operator_only:
                continue
            is_administration = method.access.scope in (ADMIN, SIGNED_IN)
            headers = world.callers["admin" if is_administration else "user"]
            for call, status in (await rest_statuses(http, method, foreign, headers)).items():
                if status != 404:
                    wrong[call] = status
            native = await grpc_status(channel, method, foreign, headers)
            if native is not grpc.StatusCode.NOT_FOUND:
                wrong[method.name] = native
    assert wrong == {}


async def test_a_refusal_never_says_why_a_key_is_not_valid(
    world: World, http: httpx.AsyncClient
) -> None:
    bodies = set()
    for caller in ("unknown key", "malformed key", "expired key", "revoked key"):
        answer = await http.get("/v1/models", headers=world.callers[caller])
        bodies.add((answer.status_code, re.sub(r"req_\w+", "", answer.text)))
    assert len(bodies) == 1


def _is_a_sign_in(method: Method) -> bool:
    return method.name.endswith(("/CreateSession", "/AcceptInvitation", "/FinishSignIn"))


@contextlib.asynccontextmanager
async def _channel(world: World) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(world.url.removeprefix("http://")) as channel:
        yield channel
