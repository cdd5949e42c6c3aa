"""What control keeps, in SQLite or PostgreSQL: rows, an audit of each change, and an outbox of what
is to be published."""

from headrace.database.schema import SchemaMismatch
from headrace_control.store.billing.prices import price_at
from headrace_control.store.database.pages import FIRST_PAGE, PageOptions
from headrace_control.store.store import Store

__all__ = ["FIRST_PAGE", "PageOptions", "SchemaMismatch", "Store", "price_at"]
