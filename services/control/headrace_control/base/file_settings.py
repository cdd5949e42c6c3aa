"""Settings of files: a part of control's settings."""

from __future__ import annotations

from pydantic import Field

from headrace.settings import ServiceSettings
from headrace_control.base.files import FileLimits


class FileSettings(ServiceSettings):
    """What the settings of control derive from."""

    files_tenant_bytes: int = Field(default=10 << 30, ge=0)
    """Bytes of files that one tenant may store. What batches write counts, and is stored beyond
    it. Too small: uploads are refused until files are deleted or expire. Too large: one tenant
    takes the room of all."""
    files_tenant_count: int = Field(default=10_000, ge=0)
    """Files that one tenant may store."""
    files_max_bytes: int = Field(default=16 << 30, ge=0)
    """Bytes of files that all tenants together may store. They are in the store of the broker: its
    `max_file_store` must hold them besides requests, results and usage, and its disk too."""
    file_uploads: int = Field(default=16, ge=1)
    """Files that are received at once; of one tenant a quarter. Each takes some MiB of memory. Too
    small: uploads wait for those over slow connections."""

    @property
    def file_limits(self) -> FileLimits:
        return FileLimits(self.files_tenant_bytes, self.files_tenant_count, self.files_max_bytes)
