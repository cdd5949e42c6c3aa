"""FileService: OpenAI's files of the caller's tenant."""

# ruff: noqa: N802 - the names of the methods are the proto's

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol

from google.api.httpbody_pb2 import HttpBody

from headrace.v1 import files_pb2 as pb
from headrace.v1.files_pb2_grpc import FileServiceServicer
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.files.file_objects import (
    content_disposition,
    deleted_object,
    file_list,
    file_object,
    file_query,
)
from headrace_control.api.files.upload_form import UploadForm, check_declared
from headrace_control.api.files.upload_slots import UploadSlots
from headrace_control.api.http.replies import BODY_BYTES, header, send_head, send_json
from headrace_control.api.tenancy.rules import actor
from headrace_control.base.settings import ControlSettings
from headrace_control.files.file_store import FileStore


class FileParts(Protocol):
    @property
    def settings(self) -> ControlSettings: ...
    @property
    def files(self) -> FileStore: ...


class FileService(FileServiceServicer):
    def __init__(self, parts: FileParts) -> None:
        self._files, self._limits = parts.files, parts.settings.file_limits
        self._slots = UploadSlots(parts.settings.file_uploads)

    async def UploadFile(
        self, request: AsyncIterator[HttpBody], context: Context
    ) -> AsyncIterator[HttpBody]:
        tenant, declared = current_caller().tenant, header(context, BODY_BYTES)
        size = int(declared) if declared.isascii() and declared.isdigit() else 0
        check_declared(size)
        with self._slots.taken(tenant):
            first = await anext(aiter(request), HttpBody())
            form = UploadForm(first.content_type)
            file = await self._files.receive(
                tenant,
                _file_in(form, first, request),
                lambda: form.described(tenant),
                limits=self._limits,
                declared_bytes=size,
                by=actor(current_caller()),
            )
        yield await send_json(context, file_object(file))

    async def ListFiles(
        self, request: pb.ListFilesRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        found, more = await self._files.list(current_caller().tenant, file_query(request))
        yield await send_json(context, file_list(found, has_more=more))

    async def GetFile(
        self, request: pb.GetFileRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        file = await self._files.get(current_caller().tenant, request.file_id)
        yield await send_json(context, file_object(file))

    async def DeleteFile(
        self, request: pb.DeleteFileRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        caller = current_caller()
        await self._files.delete(caller.tenant, request.file_id, by=actor(caller))
        yield await send_json(context, deleted_object(request.file_id))

    async def GetFileContent(
        self, request: pb.GetFileContentRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        file = await self._files.get(current_caller().tenant, request.file_id)
        async with aclosing(self._files.read(file)) as pieces:
            # Before the head is sent, so that a file that cannot be read is an error of its own.
            first = await anext(pieces, b"")
            shown_as = ("content-disposition", content_disposition(file.filename))
            await send_head(context, file.bytes, (shown_as,))
            yield HttpBody(content_type="application/octet-stream", data=first)
            async for piece in pieces:
                yield HttpBody(data=piece)


async def _file_in(
    form: UploadForm, first: HttpBody, others: AsyncIterator[HttpBody]
) -> AsyncIterator[bytes]:
    for piece in form.feed(first.data):
        yield piece
    async for message in others:
        for piece in form.feed(message.data):
            yield piece
    form.finish()
