"""The REST paths that Envoy serves, read from the descriptors that it transcodes with. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import FileDescriptorSet

_VARIABLE = re.compile(r"\{([\w.]+)(?:=([^}]*))?\}")
_IRREGULAR = {"people": "person"}


@dataclass(frozen=True, slots=True, order=True)
class RestPath:
    """One HTTP method of one path."""

    path: str
    """With variables by name: `/v1/models/{model}`, `/v2/admin/tenants/{tenant}/keys/{key}`."""
    method: str
    rpc: str
    """The gRPC method behind it, `headrace.v1.OpenAIService.GetModel`."""
    fields: tuple[str, ...] = ()
    """Fields of the request that the path gives, as `key.name`."""
    body: str = ""
    """Field of the request that the body is; `*`: the whole request; empty: there is no body."""

    @property
    def service(self) -> str:
        """The full name of the gRPC service, `headrace.v1.OpenAIService`."""
        return self.rpc.rpartition(".")[0]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def read_paths(descriptors: bytes) -> tuple[RestPath, ...]:
    """Return every REST path of a serialized FileDescriptorSet, in the order of the files."""
    return tuple(_paths(FileDescriptorSet.FromString(descriptors)))


def _paths(files: FileDescriptorSet) -> Iterator[RestPath]:
    for file in files.file:
        for service in file.service:
            for method in service.method:
                rule = method.options.Extensions[annotations_pb2.http]
                for binding in (rule, *rule.additional_bindings):
                    verb, path = _verb_and_path(binding)
                    if path:
                        yield RestPath(
                            path=_VARIABLE.sub(_readable, path),
                            method=verb,
                            rpc=f"{file.package}.{service.name}.{method.name}",
                            fields=tuple(name for name, _ in _VARIABLE.findall(path)),
                            body=binding.body,
                        )


def _readable(variable: re.Match[str]) -> str:
    """Return a variable as its documentation has it.

    {model=**}              {model}
    {name=tenants/*}        tenants/{tenant}
    {parent=deadLetters/*}  deadLetters/{dead_letter}
    """
    field, pattern = variable[1], variable[2] or "*"
    if pattern in ("*", "**"):
        return f"{{{field}}}"
    segments = pattern.split("/")
    for at, segment in enumerate(segments):
        if segment == "*" and at > 0:
            segments[at] = f"{{{_singular(segments[at - 1])}}}"
    return "/".join(segments)


def _singular(collection: str) -> str:
    """Return the name of one member of a collection: `dead_letter` of `deadLetters`."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", collection).lower()
    return _IRREGULAR.get(name, name.removesuffix("s"))


def _verb_and_path(rule: HttpRule) -> tuple[str, str]:
    kind = rule.WhichOneof("pattern")
    if kind is None or kind == "custom":
        return rule.custom.kind, rule.custom.path
    return kind.upper(), str(getattr(rule, kind))
