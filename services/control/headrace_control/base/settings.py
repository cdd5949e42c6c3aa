"""Settings of control, HEADRACE_CONTROL_*, each with its trade-off."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from headrace.auth.networks import parse_networks
from headrace.auth.settings import AccessSettings
from headrace.credentials.secret_files import check_secret_file
from headrace.database.settings import DatabaseSettings
from headrace_control.base.file_settings import BatchSettings, FileSettings
from headrace_control.base.sign_in_settings import SignInSettings


class ControlSettings(
    SignInSettings, FileSettings, BatchSettings, DatabaseSettings, AccessSettings
):
    """Flags, then HEADRACE_CONTROL_*, then the file named by HEADRACE_CONTROL_CONFIG."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        env_parse_none_str="none",
        env_prefix="HEADRACE_CONTROL_",
    )

    database_url: SecretStr = SecretStr("sqlite:///headrace.db")
    """Where tenants, keys and people are stored: sqlite:///relative/path, sqlite:////absolute/path,
    or postgresql://user:password@host:port/name. SQLite is one file for one control process; with
    PostgreSQL others may stand by on other machines. The password is never logged."""
    database_upgrade: bool = True
    """Whether a start brings an older database to the schema of this version. Off: it refuses to
    start, and `headrace db upgrade` does it: for databases that are backed up before."""
    grpc_port: int = 0
    """Port of the administration API; 0 picks a free one."""
    bootstrap_keys_dir: Path | None = None
    """Directory for the first keys, `admin.key` and `cli.key`, which are made where keys are
    required and the database has none. Unset: none are made, and `headrace key create` needs a key
    that exists."""

    lease_ttl_s: int = Field(default=3, ge=1)
    """Life of the lease of the active process, in whole seconds. Too small: a pause of the broker
    costs a take-over. Too large: after a death nothing is administered for this long; calls with
    keys go on meanwhile."""
    lease_renew_s: float = Field(default=0.5, gt=0)
    """Time between renewals; several must fit into the life of the lease."""
    lease_acquire_s: float = Field(default=0.5, gt=0)
    """How often a standby tries to become the active process. Too large: this much is added to a
    take-over."""
    stamp_s: float = Field(default=10.0, gt=0)
    """How often the published tables are stamped as complete. Gateways warn about tables whose
    stamp is a day old. Too small: messages for nothing."""
    publish_wait_s: float = Field(default=2.0, ge=0)
    """Longest that the answer to a change waits until gateways have it. The change is stored by
    then, and is published later where the broker is away. Too small: a change that was answered is
    not in force yet. Too large: administrators wait for a broker that is away."""

    pepper_settle_s: float = Field(default=120.0, ge=0)
    """How long a new current pepper must be known here before digests of keys are made anew under
    it. Too small: a gateway that has not got the file yet refuses keys. Too large: a rotation of
    peppers takes longer."""

    webhook_keys_file: Path | None = None
    """File of the Fernet keys that secrets of webhooks are encrypted with, one a line, the current
    one first; `headrace up` makes it. Unset: there are no webhooks. Keep it apart from the
    database, which is of no use for signing without it. Only its owner may read it; after a new
    first line and a start of control the old lines may go."""
    webhook_networks: tuple[str, ...] = ()
    """Networks that webhooks may be sent to although they are not public, as JSON,
    ["10.20.0.0/16"]; loopback ones by http too. Every administrator of a tenant can have this
    process send a POST to anything there. Empty: public addresses by https only."""

    usage_rows_days: int = Field(default=400, ge=32)
    """How many days a row of usage is kept, if the statement that has it is closed. Sums by the
    hour, and statements, stay. Too small: rows cannot be shown to whoever doubts a bill. Too large:
    the database grows by some 300 bytes a request."""
    statement_close_days: int | None = Field(default=3, ge=0)
    """How many days after a month's end its statement is closed; none: only by `headrace usage
    close`. Too small: usage that a broker or database held back comes as a correction of the next
    month. Too large: bills are late."""
    statement_lines_by_key: bool = False
    """Whether each key has lines of its own in statements. Each line is rounded once, so more lines
    round more often."""

    @field_validator("webhook_networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        parse_networks(networks)
        return networks

    @field_validator("webhook_keys_file")
    @classmethod
    def _secret_file(cls, file: Path | None) -> Path | None:
        if file is not None:
            check_secret_file(file)
        return file
