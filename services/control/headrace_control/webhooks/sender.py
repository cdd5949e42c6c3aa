"""Sends one request to an endpoint of a tenant, as to a stranger: bounded in time, size and place.

The host's name is resolved once, and the connection goes to an address that was checked: a name
that resolves to another one a moment later gains nothing. No redirect is followed, no proxy is
used, and nothing of the answer but its status is kept.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address

import httpx

from headrace.auth.networks import Address, Networks
from headrace_control.webhooks.addresses import ForbiddenAddress, allowed_of, parse_host

TIMEOUT_S = 10.0
"""Of an attempt, from resolving the name to the status of the answer."""
MAX_CONNECTS = 3
"""Addresses of a host that are tried."""
_LOOK_UPS = 64
"""Threads that resolve names: a slow name server of one tenant must not delay the others."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 0
    """HTTP status; 0: there was none."""
    error: str = ""
    """Why there was none, in words for the tenant."""


class WebhookSender:
    """Use it as a context manager."""

    def __init__(
        self,
        networks: Networks,
        *,
        timeout_s: float = TIMEOUT_S,
        resolve: Callable[[str], list[str]] | None = None,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            networks: that may be sent to although they are not public.
            resolve: returns the addresses of a name, on a thread; raises OSError if it has none.
                None: as the system does.
            trusted: whose certificates are; None: the authorities of the system, and of the
                environment's SSL_CERT_FILE.
        """
        self._networks, self._timeout_s = networks, timeout_s
        self._look_up = resolve or _addresses_of
        self._trusted = trusted or ssl.create_default_context()
        self._resolvers = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="webhook-names")

    async def __aenter__(self) -> WebhookSender:
        self._client = httpx.AsyncClient(
            verify=self._trusted,
            trust_env=False,
            follow_redirects=False,
            timeout=self._timeout_s,
            # A connection that is kept would skip the check of the next delivery.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a POST, and return what came of it. It raises nothing."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(httpx.URL(url), headers, body)
        except TimeoutError:
            return Answer(error=f"it has not answered within {self._timeout_s:g} s")
        except ForbiddenAddress as error:
            return Answer(error=str(error))
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, ValueError) as error:
            return Answer(error=_explained(error))

    async def _send(self, url: httpx.URL, headers: Mapping[str, str], body: bytes) -> Answer:
        addresses = await self._resolve(url)
        checked = allowed_of(addresses, self._networks, is_plain=url.scheme == "http")
        for address in checked[:MAX_CONNECTS]:
            try:
                return await self._send_to(address, url, headers, body)
            except httpx.ConnectError as error:
                failed = error
        raise failed

    async def _resolve(self, url: httpx.URL) -> list[Address]:
        if (address := parse_host(url.host)) is not None:
            return [address]
        # `raw_host`: names in other scripts are resolved by their ASCII form.
        host = url.raw_host.decode("ascii")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._resolvers, self._look_up, host)
        return [ip_address(each.partition("%")[0]) for each in found]

    async def _send_to(
        self, address: Address, url: httpx.URL, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        request = self._client.build_request(
            "POST",
            url.copy_with(host=str(address)),
            headers={**headers, "host": url.netloc.decode("ascii")},
            content=body,
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        response = await self._client.send(request, stream=True)
        # Not read: a body may be endless, and an error page inside must not come out.
        await response.aclose()
        return Answer(response.status_code)


def _addresses_of(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _explained(error: Exception) -> str:
    """Return the error in words that tell nothing of what is inside: no address, no path."""
    match error:
        case socket.gaierror():
            return "the name of its host cannot be resolved"
        case httpx.ConnectError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return "its certificate is not valid for its host, or of an unknown authority"
        case httpx.ConnectError():
            return "it cannot be connected to"
        case httpx.TimeoutException():
            return "it has not answered in time"
        case httpx.RemoteProtocolError():
            return "its answer is no HTTP"
        case _:
            return f"the connection failed ({type(error).__name__})"
