"""Why a mesh cannot be reached, in words that say what to do. Pure."""

from __future__ import annotations

import re

from headrace.errors import CapacityError, Code

_VERIFY_FAILED = re.compile(r"CERTIFICATE_VERIFY_FAILED: (.*?)(: OK)?$")
_OTHER_NAME = "Hostname Verification Check failed"
_CLOSED = "Socket closed"
_NEVER_SENT = ("failed to connect", "dns resolution failed", "name resolution")


class MeshUnreachable(CapacityError):
    """Nothing that speaks gRPC answers at the URL."""

    code = Code.UNAVAILABLE

    def __init__(self, message: str, *, may_pass: bool = True) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        """Nothing answers now. False: an address or a certificate is wrong, and stays so."""


class ConnectionLost(MeshUnreachable):
    """The connection broke off; the call may have arrived."""


def unreachable(url: str, details: str) -> str:
    """Return the message for gRPC's details of a failed connection."""
    if found := _VERIFY_FAILED.search(details):
        return (
            f"the certificate of {url} is not trusted: {found[1]}; ca_file, or HEADRACE_CA_FILE for"
            " commands, names the authority to trust"
        )
    if _OTHER_NAME in details:
        return f"the certificate of {url} has other names than the URL's host"
    hint = "; perhaps it wants https://" if _CLOSED in details and url.startswith("http:") else ""
    return f"nothing answers at {url}: {details}{hint}"


def connection_error(url: str, details: str, *, connecting: bool | None = None) -> MeshUnreachable:
    """Return the error of a connection that failed with these details.

    Args:
        connecting: it failed before anything was sent. None: the details say so, or do not.
    """
    if connecting is None:
        connecting = any(words in details.lower() for words in _NEVER_SENT)
    if not connecting:
        return ConnectionLost(f"the connection to {url} broke off: {details}")
    wrong = _VERIFY_FAILED.search(details) is not None or _OTHER_NAME in details
    return MeshUnreachable(unreachable(url, details), may_pass=not wrong)
