"""Every method and REST path of the public and administrative APIs, from the descriptors that Envoy
transcodes by, with a call of each: what the access matrix is made of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass

from headrace.supervisor.servers.assets import descriptor_set
from headrace.v1.access_pb2 import Access, access

Json = dict[str, Any]
_PACKAGES = ("headrace.v1", "headrace.admin.v1")
_VARIABLE = re.compile(r"\{([\w.]+)(?:=[^}]*)?\}")
_HTTP_BODY = "google.api.HttpBody"


@dataclass(frozen=True)
class Sample:
    """A call of a method; it need not succeed, but must reach its handler."""

    request: Mapping[str, Any]
    """The request message as JSON; of an HttpBody, the JSON body."""
    foreign: Mapping[str, Any] | None = None
    """The same about a resource of another tenant, which has to be 404; None: it names none."""


@dataclass(frozen=True)
class Method:
    """One RPC, with the paths that REST callers reach it by."""

    name: str
    """`/headrace.v1.ModelService/ListModels`"""
    access: Access
    streams: bool
    input_type: str
    rules: tuple[HttpRule, ...]

    def message(self, request: Mapping[str, Any]) -> bytes:
        """Return the request's bytes for gRPC."""
        if self.input_type == _HTTP_BODY:
            data = json.dumps(dict(request)).encode()
            return bytes(HttpBody(content_type="application/json", data=data).SerializeToString())
        message = GetMessageClass(Default().FindMessageTypeByName(self.input_type))()
        json_format.ParseDict(self._without_http_body(request), message)
        return bytes(message.SerializeToString())

    def http_calls(self, request: Mapping[str, Any]) -> Iterator[tuple[str, str, Json | None]]:
        """Yield verb, path and JSON body of the call by each of its paths."""
        for rule in self.rules:
            verb = str(rule.WhichOneof("pattern"))
            left = dict(request)
            path, names = getattr(rule, verb), _VARIABLE.findall(getattr(rule, verb))
            for name in names:
                value = str(_take(left, name))
                path = _VARIABLE.sub(value.replace("\\", ""), path, count=1)
            body = None
            if rule.body == "*":
                body, left = left, {}
            elif rule.body:
                body = left.pop(rule.body, {})
            query = "&".join(f"{key}={value}" for key, value in left.items())
            yield verb.upper(), f"{path}?{query}" if query else path, body

    @staticmethod
    def _without_http_body(request: Mapping[str, Any]) -> Json:
        return {key: value for key, value in request.items() if key != "body"}


def methods() -> list[Method]:
    """Return every method of the served packages, in the order of the files."""
    files = FileDescriptorSet.FromString(descriptor_set().read_bytes()).file
    for file in files:
        if file.package in _PACKAGES:
            import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
    return [
        _method(f"/{file.package}.{service.name}/{method.name}", method)
        for file in files
        if file.package in _PACKAGES
        for service in file.service
        for method in service.method
    ]


def _method(name: str, method: MethodDescriptorProto) -> Method:
    rule = method.options.Extensions[annotations_pb2.http]
    rules = (rule, *rule.additional_bindings) if rule.WhichOneof("pattern") else ()
    return Method(
        name,
        method.options.Extensions[access],
        method.server_streaming,
        method.input_type.removeprefix("."),
        rules,
    )


def _take(request: Json, field: str) -> Any:
    """Take a field's value out of the request: `tenant.name` of {"tenant": {"name": ...}}."""
    head, _, rest = field.partition(".")
    if not rest:
        return request.pop(head)
    request[head] = inner = dict(request[head])
    return _take(inner, rest)
