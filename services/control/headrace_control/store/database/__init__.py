"""The database under the store: its tables, its schema, and transactions that change it."""

# Why here: whoever reads METADATA must find every table in it.
from headrace_control.store.database import (
    billing_tables,
    file_tables,
    tables,
    webhook_tables,
)

__all__ = ["billing_tables", "file_tables", "tables", "webhook_tables"]
