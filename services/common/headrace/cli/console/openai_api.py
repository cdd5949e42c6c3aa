"""OpenAI's API of a mesh, as commands call what has no gRPC of its own: files."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from headrace.cli.console.options import MeshTarget
from headrace.client import MeshUnreachable
from headrace.client.unreachable import unreachable
from headrace.errors import InternalError, errors_by_reason

SILENCE_S = 60.0
"""Longest time in which nothing of a body or an answer comes."""


@contextmanager
def openai_api(mesh: MeshTarget) -> Iterator[httpx.Client]:
    """Open connections whose requests have the key that uses models, as `mesh.using_key` says.

        with openai_api(mesh) as http:
            found = answer_of(http.get("/v1/files"))

    Raises:
        HeadraceError: in place of any error of httpx, from the body of the `with` too.
        MeshNotRunning: no URL was given and no mesh runs in the state directory.
        ClickException: the key file cannot be read.
    """
    key, trust = mesh.using_key(), mesh.trust()
    authority = None if trust["ca_file"] is None else str(trust["ca_file"])
    client = httpx.Client(
        base_url=mesh.url,
        headers={} if key is None else {"authorization": f"Bearer {key}"},
        verify=ssl.create_default_context(cafile=authority),
        timeout=SILENCE_S,
        trust_env=False,
    )
    name = trust["server_name"]
    if name:
        client.event_hooks = {"request": [lambda request: _expect(request, name)]}
    with client:
        try:
            yield client
        except httpx.ConnectError as error:
            raise MeshUnreachable(unreachable(mesh.url, str(error))) from error
        except httpx.HTTPError as error:
            why = str(error) or repr(error)
            raise MeshUnreachable(f"the connection to {mesh.url} broke off: {why}") from error


def answer_of(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON of a response.

    Raises:
        HeadraceError: the error that it says.
    """
    check(response)
    return dict(response.json())


def check(response: httpx.Response) -> None:
    """Raise the error that a response says, if it is one. Its body may still have to be read."""
    if response.is_success:
        return
    body = response.read()
    try:
        error = json.loads(body)["error"]
        kind = errors_by_reason().get(str(error["code"]).upper(), InternalError)
        raise kind(str(error["message"]), field=error["param"])
    except (ValueError, KeyError, TypeError):
        raise InternalError(f"the mesh answered {response.status_code} without a reason") from None


def _expect(request: httpx.Request, server_name: str) -> None:
    """Have the certificate checked for this name in place of the URL's host."""
    request.extensions["sni_hostname"] = server_name
