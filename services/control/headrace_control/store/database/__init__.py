"""The database under the store: its tables, its schema, and transactions that change it."""
