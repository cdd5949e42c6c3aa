"""What all tables of control are registered in."""

from __future__ import annotations

from headrace.database.columns import new_metadata

METADATA = new_metadata()
