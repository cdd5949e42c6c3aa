"""Settings of files and batches: a part of control's settings."""

from __future__ import annotations

from pydantic import Field

from headrace.rpc.delivery_secret import DeliverySettings
from headrace.settings import ServiceSettings
from headrace_control.base.batches import BatchLimits
from headrace_control.base.files import FileLimits


class FileSettings(ServiceSettings):
    """What the settings of control derive from."""

    files_tenant_bytes: int = Field(default=10 << 30, ge=0)
    """Bytes of files that one tenant may store; answers of batches count as they come. Too small:
    uploads are refused, and batches fail with what they have, until files are deleted or expire.
    Too large: one tenant takes the room of all."""
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


class BatchSettings(DeliverySettings):
    """What the settings of control derive from. Gateways are proved to by `delivery_secret_file`,
    as workers prove themselves."""

    batch_rows: int = Field(default=96, ge=1)
    """Rows of one batch that run, or wait to run again, at a time. They are in the bulk lanes,
    which other requests overtake. Too small: slots of workers wait for the next rows. Too large:
    the memory of so many bodies, and places of `max_open_requests` of gateways."""
    batch_rows_in_all: int = Field(default=256, ge=1)
    """Rows of all batches that run at a time. Too small: batches wait for one another. Too large:
    bulk lanes are full, and rows are refused and tried again for nothing."""
    batches_at_once: int = Field(default=16, ge=1)
    """Batches that are worked on at a time, the oldest first, and of one tenant a quarter of them
    or one; others wait as `validating` or `in_progress`. Too small: one that waits for a quota
    delays others. Too large: each reads its input file as it goes."""
    batches_per_tenant: int = Field(default=200, ge=1)
    """Batches of one tenant that have not ended; a further one is refused with 429."""

    @property
    def batch_limits(self) -> BatchLimits:
        return BatchLimits(self.batch_rows, self.batch_rows_in_all, self.batches_at_once)
