"""Why there is no connection to NATS, in messages that say what to do."""

from __future__ import annotations

import socket
import ssl

import nats.js.errors

_NOT_ENABLED = frozenset({None, 10039, 10076})
"""None: not even JetStream answered the call."""
_NO_JETSTREAM = (
    "JetStream is not enabled there, or not ready; start nats-server with -js or a jetstream block"
)


class ConnectErrors:
    """The errors of one attempt to connect; `str` is the most specific, the last of equals."""

    def __init__(self) -> None:
        self._ranks: dict[str, int] = {}

    def add(self, error: Exception) -> None:
        reason, rank = _explain(error)
        # Why popped first: it must come after what was added before.
        self._ranks.pop(reason, None)
        self._ranks[reason] = rank

    def __str__(self) -> str:
        best = max(self._ranks.values(), default=0)
        return next((r for r, rank in reversed(self._ranks.items()) if rank == best), "no answer")


def _explain(error: Exception) -> tuple[str, int]:
    """Return the reason and its rank: a server that rejects a user also resets connections."""
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
