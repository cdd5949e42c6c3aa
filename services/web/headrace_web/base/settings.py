"""Settings of web, HEADRACE_WEB_*, each with its trade-off."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from headrace.auth.settings import AccessSettings
from headrace.credentials.secret_files import check_secret_file, read_secret
from headrace.rpc.delivery_secret import DeliverySettings


class WebSettings(AccessSettings, DeliverySettings):
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
    database_url_file: Path | None = None
    """File with one line, the URL, for a URL with a password; goes before `database_url`. It must
    be readable by this process alone (mode 0600)."""
    http_port: int = 0
    """Port of the page and its API, for Envoy; 0 picks a free one."""

    max_conversations: int = Field(default=10_000, ge=1)
    """Conversations that one person may keep. Too small: people must delete what they would keep.
    Too large: one person can fill the database."""
    max_turns: int = Field(default=4_000, ge=2)
    """Turns of one conversation, all branches counted."""
    max_text_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Longest message of a person, and longest system prompt, in bytes of UTF-8."""
    deleted_days: int = Field(default=7, ge=0)
    """Days after which a deleted conversation, which can be restored until then, is gone."""
    submit_patience_s: float = Field(default=600.0, gt=0)
    """How long a question that the mesh cannot take now is sent again, before it fails. Too small:
    a restart of all gateways costs questions. Too large: answers come that nobody waits for."""

    @field_validator("database_url_file")
    @classmethod
    def _secret_file(cls, file: Path | None) -> Path | None:
        if file is not None:
            check_secret_file(file)
        return file

    def database(self) -> str:
        """Return the URL of the database, with its password.

        Raises:
            InsecureSecretFile: its file cannot be used.
        """
        if self.database_url_file is None:
            return self.database_url.get_secret_value()
        return read_secret(self.database_url_file).decode(errors="replace")
