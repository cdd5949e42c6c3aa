"""Databases of services: SQLite or PostgreSQL, through SQLAlchemy Core and alembic."""
