"""Settings of web, HEADRACE_WEB_*, each with its trade-off."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from headrace.auth.settings import AccessSettings
from headrace.database.settings import DatabaseSettings
from headrace.rpc.delivery_secret import DeliverySettings


class WebSettings(DatabaseSettings, AccessSettings, DeliverySettings):
    """Flags, then HEADRACE_WEB_*, then the file named by HEADRACE_WEB_CONFIG."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        env_parse_none_str="none",
        env_prefix="HEADRACE_WEB_",
    )

    database_url: SecretStr = SecretStr("sqlite:///web.db")
    """Where conversations and votes are stored: sqlite:///relative/path, sqlite:////absolute/path,
    or postgresql://user:password@host:port/name, which may be that of control: the tables are in
    its schema `headrace_web`. SQLite is one file for one web process; with PostgreSQL there may be
    several. The password is never logged. A start brings an
    older database to the schema of this version."""
    http_port: int = 0
    """Port of the page and its API, for Envoy; 0 picks a free one."""

    max_conversations: int = Field(default=10_000, ge=1)
    """Conversations that one person may keep. Too small: people must delete what they would keep.
    Too large: one person can fill the database."""
    max_turns: int = Field(default=4_000, ge=2)
    """Turns of one conversation, all branches counted."""
    max_conversation_characters: int = Field(default=8_000_000, ge=1024)
    """Characters of all turns of one conversation. It is read and sent whole when it is opened. Too
    small: long talks end. Too large: opening one holds up the others."""
    max_open_answers: int = Field(default=20, ge=1)
    """Answers of one person that may be under way at a time."""
    max_text_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Longest message of a person, and longest system prompt, in bytes of UTF-8."""
    deleted_days: int = Field(default=7, ge=0)
    """Days after which a deleted conversation, which can be restored until then, is gone."""
    submit_patience_s: float = Field(default=600.0, gt=0)
    """How long a question that the mesh cannot take now is sent again, before it fails. Too small:
    a restart of all gateways costs questions. Too large: answers come when they are
    of no use any more."""

    @model_validator(mode="after")
    def _knows_envoy(self) -> Self:
        # Why: certificates prove Envoy to gateways, but nothing that HTTP servers show here.
        if self.auth == "keys" and self.edge_secret_file is None:
            raise ValueError(
                "auth is keys, which needs edge_secret_file for the cookies of sessions"
            )
        return self
