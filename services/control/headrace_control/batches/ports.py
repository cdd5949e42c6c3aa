"""What feeding a batch needs of others."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Protocol

from headrace.internal.v1.rows_pb2 import RowAnswer
from headrace_control.base.batches import Batch, BatchError, Closing, FinishedRow, Owner
from headrace_control.base.files import File, FileLimits, NewFile
from headrace_control.batches.input_rows import InputRow


class RowRunner(Protocol):
    """Runs rows at gateways."""

    async def run(self, batch: Batch, row: InputRow, *, is_fresh: bool) -> RowAnswer:
        """Return the answer to a row, which runs once however often this is called.

        Args:
            is_fresh: this was never called for it.

        Raises:
            CapacityError: there is no answer, for a reason that is not the row's: call again.
        """
        ...

    async def cancel(self, batch: Batch, line: int) -> None:
        """End a row that runs; its call is answered. Raises as `run`."""
        ...

    async def refusals(self, owner: Owner, models: Sequence[str]) -> dict[str, str]:
        """Return those of the models that the owner may not use, each with why. Raises as `run`."""
        ...


class BatchRows(Protocol):
    """The batches of the store, for those that work on them; see `store.batches.store.Batches`."""

    async def unfinished(self) -> tuple[Batch, ...]: ...

    async def find(self, batch_id: str) -> Batch | None: ...

    async def start(self, batch_id: str, total: int) -> None: ...

    async def refuse(self, batch_id: str, errors: Sequence[BatchError]) -> None: ...

    async def move_mark(self, batch_id: str, line: int) -> None: ...

    async def finished_lines(self, batch_id: str) -> frozenset[int]: ...

    async def add_rows(
        self, batch_id: str, rows: Sequence[FinishedRow], limits: FileLimits | None = None
    ) -> int | None: ...

    async def close(self, batch_id: str, closing: Closing) -> None: ...

    async def rows(
        self, batch_id: str, *, after: int, succeeded: bool | None = None
    ) -> tuple[FinishedRow, ...]: ...

    async def finish(self, batch_id: str, *, has_output: bool, has_errors: bool) -> None: ...


class Files(Protocol):
    """The files of tenants; see `files.file_store.FileStore`."""

    async def get(self, tenant: str, file_id: str) -> File: ...

    def read(self, file: File) -> AsyncIterator[bytes]: ...

    async def create(
        self, new: NewFile, pieces: AsyncIterable[bytes], *, file_id: str = ""
    ) -> File: ...
