"""The database under the store: its tables and its schema."""
