"""The migrations of the database's schema, as alembic runs them."""
