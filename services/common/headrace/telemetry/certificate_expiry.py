"""The metric of how long the certificate of a process is still valid."""

from __future__ import annotations

import time

from prometheus_client import Gauge

from headrace.credentials.tls_files import TlsFiles

expiry = Gauge(
    "headrace_certificate_expiry_seconds",
    "Time until the certificate that this process has inside the mesh expires.",
    ["certificate"],
)


def export_expiry(files: TlsFiles | None) -> None:
    """Have each scrape tell when the certificate expires that the files hold then."""
    if files is not None:
        expiry.labels("mesh").set_function(lambda: files.expires_s - time.time())
