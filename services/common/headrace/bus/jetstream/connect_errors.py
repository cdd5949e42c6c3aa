"""Why there is no connection to NATS, in words that say what to do."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

import nats.js.errors

_NOT_ENABLED = frozenset({None, 10039, 10076})
"""None: not even JetStream answered the call."""
_NO_JETSTREAM = (
    "JetStream is not enabled there, or not ready; start nats-server with -js or a jetstream block"
)


class ConnectErrors:
    """The errors of one attempt to connect, of which one is the reason to tell."""

    def __init__(self) -> None:
        self._ranked: dict[str, int] = {}

    def note(self, error: Exception) -> None:
        reason, rank = _explained(error)
        # Later ones count more, so that what was so at first and is no longer is not told.
        self._ranked.pop(reason, None)
        self._ranked[reason] = rank

    def __str__(self) -> str:
        best = max(self._ranked.values(), default=0)
        return next((r for r, rank in reversed(self._ranked.items()) if rank == best), "no answer")


def redact_url(url: str) -> str:
    """URLs of servers without user and password."""
    return ", ".join(_without_user(each) for each in url.split(","))


def _without_user(url: str) -> str:
    user, at, rest = url.rpartition("@")
    return f"{user.partition('//')[0]}//{rest}" if at else url


def is_valid_url(url: str) -> bool:
    """Whether it can be asked at all; nats-py looks malformed ones up as names, for ever."""
    try:
        return all(
            urlsplit(each).scheme in ("nats", "tls", "ws", "wss")
            and bool(urlsplit(each).hostname)
            and urlsplit(each).port != 0
            for each in url.split(",")
        )
    except ValueError:
        return False


def _explained(error: Exception) -> tuple[str, int]:
    """The reason, and how much it tells: a server that refuses a user also resets connections."""
    text = str(error)
    if "authorization violation" in text.lower():
        return "it refuses this user, password or token", 3
    if "permissions violation" in text.lower():
        return text.removeprefix("nats: "), 3
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or text
        return f"its certificate is not trusted: {why}; SSL_CERT_FILE names the CA to trust", 3
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or text}", 3
    if isinstance(error, nats.js.errors.APIError) and error.err_code not in _NOT_ENABLED:
        return f"JetStream: {error.description or text}", 3
    if isinstance(error, nats.js.errors.Error | nats.errors.NoRespondersError):
        return _NO_JETSTREAM, 2
    if isinstance(error, socket.gaierror):
        return f"its name cannot be looked up: {error.strerror or text}", 1
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in text:
        return "connection refused; is a server running there?", 1
    return text.removeprefix("nats: ") or "no answer", 0
