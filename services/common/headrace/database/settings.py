"""Where a service's database is: settings that services with one share."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr, field_validator

from headrace.credentials.secret_files import check_secret_file, read_secret
from headrace.settings import ServiceSettings


class DatabaseSettings(ServiceSettings):
    """Derived classes say the default of `database_url`, and what is stored there."""

    database_url: SecretStr
    database_url_file: Path | None = None
    """File with one line, the URL, for a URL with a password; goes before `database_url`. It must
    be readable by this process alone (mode 0600)."""

    @field_validator("database_url_file")
    @classmethod
    def _url_file(cls, file: Path | None) -> Path | None:
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
