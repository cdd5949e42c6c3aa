"""The REST paths that Envoy serves, read from the descriptors that it transcodes with. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import FileDescriptorSet

_VARIABLE_PATTERN = re.compile(r"\{(\w+)=[^}]*\}")


@dataclass(frozen=True, slots=True, order=True)
class RestPath:
    """One HTTP method of one path."""

    path: str
    """With variables by name: `/v1/models/{model}`."""
    method: str
    rpc: str
    """The gRPC method behind it, `headrace.v1.OpenAIService.GetModel`."""

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
                        rpc = f"{file.package}.{service.name}.{method.name}"
                        yield RestPath(_VARIABLE_PATTERN.sub(r"{\1}", path), verb, rpc)


def _verb_and_path(rule: HttpRule) -> tuple[str, str]:
    kind = rule.WhichOneof("pattern")
    if kind is None or kind == "custom":
        return rule.custom.kind, rule.custom.path
    return kind.upper(), str(getattr(rule, kind))
