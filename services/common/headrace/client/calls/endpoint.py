"""Where a mesh is and how it is called, for gRPC and REST alike."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
from grpc_status import rpc_status

from headrace.client.calls.scripts import Call, GrpcCall, RestCall, Upload
from headrace.client.unreachable import MeshUnreachable, connection_error
from headrace.errors import FailedPrecondition, HeadraceError
from headrace.rpc.addresses import is_https, join_host_port, split_host_port
from headrace.rpc.http_errors import read_error
from headrace.rpc.status import from_rpc_error
from headrace.rpc.tls import ChannelSecurity, public_security

if TYPE_CHECKING:
    import httpx

_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
"""Codes of calls whose connection broke, where the mesh says nothing itself."""
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a mesh, the key for it, and whom to trust."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | str | None = None
    server_name: str = ""

    @property
    def closed_error(self) -> FailedPrecondition:
        """What a call after `close` raises."""
        return FailedPrecondition("the client is closed; make another one")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def security(self) -> ChannelSecurity | None:
        """
        Raises:
            MeshUnreachable: the authorities cannot be read.
        """
        ca = None if self.ca_file is None else Path(self.ca_file)
        try:
            return public_security(self.url, {"ca_file": ca, "server_name": self.server_name})
        except OSError as error:
            raise MeshUnreachable(
                f"the authorities to trust cannot be read: {error}", may_pass=False
            ) from error

    def http_options(self) -> dict[str, Any]:
        """Return the arguments of httpx's clients. The environment's proxies are not used."""
        scheme = "https" if is_https(self.url) else "http"
        verify: ssl.SSLContext | bool = False
        if scheme == "https":
            verify = ssl.create_default_context(cafile=self.ca_file and str(self.ca_file))
        return {
            "base_url": f"{scheme}://{join_host_port(*split_host_port(self.url))}",
            "headers": dict(self.metadata),
            "verify": verify,
            "trust_env": False,
            "follow_redirects": False,
        }

    @contextmanager
    def http_request(
        self, http: httpx.Client | httpx.AsyncClient, call: RestCall
    ) -> Iterator[httpx.Request]:
        """Give the request of a call; a file that it has is open meanwhile, and read as it is sent.

        Raises:
            OSError: there is no such file.
        """
        import httpx

        timeout = httpx.Timeout(call.silence_s, connect=_CONNECT_S)
        extensions = {"sni_hostname": self.server_name} if self.server_name else {}
        with _form(call.upload) as form:
            yield http.build_request(
                call.method,
                call.path,
                json=call.json,
                params={name: value for name, value in call.params.items() if value is not None},
                headers=dict(call.headers),
                timeout=timeout,
                extensions=extensions,
                **form,
            )

    def errors(self, call: Call) -> AbstractContextManager[None]:
        """Return what turns the errors of a call into HeadraceErrors."""
        return self.grpc_errors() if isinstance(call, GrpcCall) else self.http_errors()

    @contextmanager
    def grpc_errors(self) -> Iterator[None]:
        """Turn gRPC's errors into HeadraceErrors."""
        try:
            yield
        except grpc.RpcError as error:
            # A synchronous call's error has the same methods, which its type lacks.
            raise self._of_grpc(cast(grpc.aio.AioRpcError, error)) from None

    def _of_grpc(self, failed: grpc.aio.AioRpcError) -> HeadraceError:
        own_words = rpc_status.from_call(failed) is not None  # type: ignore[arg-type]  # has all it reads
        if own_words or failed.code() not in _LOST:
            return from_rpc_error(failed)
        return connection_error(self.url, str(failed.details()))

    @contextmanager
    def http_errors(self) -> Iterator[None]:
        """Turn httpx's errors into HeadraceErrors."""
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise connection_error(self.url, str(error), connecting=True) from error
        except httpx.LocalProtocolError:
            # Neither its text nor itself: both have the header, which may be the key.
            why = "the request cannot be written as HTTP"
            raise connection_error(self.url, why, connecting=False) from None
        except httpx.HTTPError as error:
            why = str(error) or repr(error)
            raise connection_error(self.url, why, connecting=False) from error


def error_of(response: httpx.Response) -> HeadraceError:
    """Return the error that a response, of which the body was read, says."""
    error = read_error(response.status_code, response.headers, response.content)
    if error is None:
        why = f"something in front of the mesh answered {response.status_code}"
        return connection_error(str(response.url), why, connecting=False)
    return error


@contextmanager
def _form(upload: Upload | None) -> Iterator[dict[str, Any]]:
    if upload is None:
        yield {}
        return
    with ExitStack() as files:
        content = upload.content
        opened = files.enter_context(content.open("rb")) if isinstance(content, Path) else content
        yield {"files": {"file": (upload.name, opened)}, "data": dict(upload.fields)}


class EventParser:
    """Reads server-sent events, or lines, from bytes that are cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def lines(self, data: bytes) -> list[bytes]:
        """Return the lines that end in `data`, without their ends."""
        # Why not httpx's: it also cuts lines at U+2028 and others, which JSON may contain.
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.removesuffix(b"\r") for line in lines]

    def end(self) -> list[bytes]:
        """Return the last line, if it had no end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
