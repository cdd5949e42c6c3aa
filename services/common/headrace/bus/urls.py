"""URLs of brokers. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit


def redact_url(urls: str) -> str:
    """Return comma-separated URLs without user and password."""
    return ", ".join(_without_user(url) for url in urls.split(","))


def is_valid_url(urls: str) -> bool:
    """Return whether nats-py can connect to these; it retries malformed ones for ever."""
    try:
        return all(
            urlsplit(url).scheme in ("nats", "tls", "ws", "wss")
            and bool(urlsplit(url).hostname)
            and urlsplit(url).port != 0
            for url in urls.split(",")
        )
    except ValueError:
        return False


def _without_user(url: str) -> str:
    user, at, rest = url.rpartition("@")
    return f"{user.partition('//')[0]}//{rest}" if at else url
