"""OpenAI's API of a mesh, as commands call it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from headrace.cli.console.options import MeshTarget
from headrace.errors import ControlUnavailable, HeadraceError, InternalError, errors_by_reason

_CALL_S = 60.0


@contextmanager
def http_api(mesh: MeshTarget) -> Iterator[httpx.Client]:
    """Open a client of the mesh, whose answers are all good ones.

    Its calls have the key of HEADRACE_API_KEY, or else cli.key of the mesh's state directory, if
    there is one.

    Raises:
        HeadraceError: in place of an answer that is an error, or that does not come.
        MeshNotRunning: no URL was given and no mesh runs in the state directory.
        ClickException: the key file cannot be read.
    """
    trust, key = mesh.trust(), mesh.using_key()

    def name_server(request: httpx.Request) -> None:
        if name := trust["server_name"]:
            request.extensions["sni_hostname"] = name

    ca_file = trust["ca_file"]
    client = httpx.Client(
        base_url=mesh.url,
        headers={} if key is None else {"authorization": f"Bearer {key}"},
        trust_env=False,
        timeout=_CALL_S,
        verify=ssl.create_default_context(cafile=None if ca_file is None else str(ca_file)),
        event_hooks={"request": [name_server], "response": [_require_success]},
    )
    with client:
        try:
            yield client
        except httpx.HTTPError as error:
            raise ControlUnavailable(f"{mesh.url} cannot be reached: {error}") from error


def _require_success(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    try:
        error = response.json()["error"]
        message, reason = str(error["message"]), str(error["code"]).upper()
    except (ValueError, KeyError, TypeError):
        raise InternalError(f"HTTP {response.status_code}: {response.text[:200]}") from None
    kind: type[HeadraceError] = errors_by_reason().get(reason, InternalError)
    raise kind(message, field=error.get("param"))
