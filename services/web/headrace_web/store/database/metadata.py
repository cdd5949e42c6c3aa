"""What all tables of web are registered in."""

from __future__ import annotations

from headrace.database.columns import new_metadata

NAMESPACE = "headrace_web"
"""PostgreSQL's schema: the database may be control's."""
METADATA = new_metadata()
