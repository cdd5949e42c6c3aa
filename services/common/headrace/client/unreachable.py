"""Why a mesh cannot be reached, in words that say what to do. Pure."""

from __future__ import annotations

import re

_VERIFY_FAILED = re.compile(r"CERTIFICATE_VERIFY_FAILED: (.*?)(: OK)?$")
_OTHER_NAME = "Hostname Verification Check failed"
_CLOSED = "Socket closed"


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
