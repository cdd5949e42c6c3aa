"""Made by alembic; see `headrace.database.schema`."""
