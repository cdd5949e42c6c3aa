"""What web keeps, in SQLite or PostgreSQL."""

from headrace.database.schema import SchemaMismatch
from headrace_web.store.store import Store

__all__ = ["SchemaMismatch", "Store"]
