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

_WHOM_TO_TRUST = "tls_ca_file (or SSL_CERT_FILE, without client certificates) names the CA to trust"
_REFUSED_BY_BROKER = {
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of this process's certificate "
    "(tls_cert_file)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this process's certificate (tls_cert_file) has expired",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of this process: set tls_ca_file, "
    "tls_cert_file and tls_key_file",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses this process's certificate (tls_cert_file): another "
    "authority has signed it, or it has expired",
}
"""By the alert that it ends the connection with."""


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
        return f"its certificate is not trusted: {why}; {_WHOM_TO_TRUST}", 3
    if isinstance(error, ssl.SSLError):
        reason = error.reason or text
        return _REFUSED_BY_BROKER.get(reason, f"TLS failed: {reason}"), 3
    if isinstance(error, nats.js.errors.APIError) and error.err_code not in _NOT_ENABLED:
        return f"JetStream: {error.description or text}", 3
    if isinstance(error, nats.js.errors.Error | nats.errors.NoRespondersError):
        return _NO_JETSTREAM, 2
    if isinstance(error, socket.gaierror):
        return f"its name cannot be looked up: {error.strerror or text}", 1
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in text:
        return "connection refused; is a server running there?", 1
    return text.removeprefix("nats: ") or "no answer", 0
