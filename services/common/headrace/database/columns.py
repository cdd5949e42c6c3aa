"""What tables of databases are made of. Times are Unix milliseconds."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

_NAMES = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}


def new_metadata() -> sa.MetaData:
    """Return what the tables of one service are registered in."""
    return sa.MetaData(naming_convention=_NAMES)


class String(sa.types.TypeDecorator[str]):
    """Text as any caller may send it, sorted by code points on every database."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        is_postgres = dialect.name == "postgresql"
        return dialect.type_descriptor(sa.Text(collation="C") if is_postgres else sa.Text())

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        # PostgreSQL stores no NUL, and neither database half of a surrogate pair.
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def time(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


def text(name: str, *constraints: Any, **options: Any) -> sa.Column[str]:
    return sa.Column(name, String, *constraints, nullable=options.pop("nullable", False), **options)
