"""The REST paths as an OpenAPI 3.1 document, made from what serves them.

The paths and the native API's messages come from the descriptors, the bodies of all others from the
models that read them, their answers and errors from `answers`. Ranges that are checked later are
left open: the document refuses nothing that the gateway takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any

from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import Default
from google.rpc.status_pb2 import Status
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from headrace.admin.v1 import (
    audit_pb2,
    keys_pb2,
    operations_pb2,
    people_pb2,
    prices_pb2,
    sessions_pb2,
    statements_pb2,
    tenants_pb2,
    usage_pb2,
    webhooks_pb2,
)
from headrace.supervisor.servers.rest_paths import RestPath, read_paths
from headrace.v1 import (
    anthropic_pb2,
    batches_pb2,
    embeddings_pb2,
    files_pb2,
    fleet_pb2,
    generation_pb2,
    models_pb2,
    openai_pb2,
    organization_pb2,
    own_key_pb2,
    probes_pb2,
    requests_pb2,
    responses_pb2,
    rest_pb2,
)
from headrace.v1.requests_pb2 import Request
from headrace_gateway.api.anthropic.service import AnthropicService
from headrace_gateway.api.openai.service import OpenAIService
from headrace_gateway.api.probes.answers.table import BODIES, answers_of, call_of, errors_of
from headrace_gateway.api.probes.proto_schemas import (
    Json,
    field_schema,
    object_schema,
    reference,
    schemas,
)
from headrace_gateway.api.responses.service import ResponsesService

_FILES = (
    *(openai_pb2, responses_pb2, anthropic_pb2, files_pb2, batches_pb2, rest_pb2),
    *(models_pb2, requests_pb2),
    *(fleet_pb2, probes_pb2, own_key_pb2),
    *(tenants_pb2, keys_pb2, people_pb2, sessions_pb2, operations_pb2, audit_pb2),
    *(webhooks_pb2, prices_pb2, organization_pb2, usage_pb2, statements_pb2),
)
_TYPED_FILES = (generation_pb2, embeddings_pb2, models_pb2)


def _models(path: RestPath) -> list[type[BaseModel]]:
    """Return what reads the body of a path of these services: one of these."""
    if (body := BODIES.get(call_of(path))) is not None:
        return [body]
    service, _, name = path.rpc.rpartition(".")
    if (servicer := _SERVICERS.get(service)) is None:
        return []
    # Why reversed: the last of several is the one of any body that does not fit the others.
    return [each.body for each in reversed(getattr(getattr(servicer, name), "endpoints", ()))]


def _messages(path: RestPath) -> tuple[Descriptor, Descriptor] | None:
    """Return the messages of a path of RestService: those of the typed method of its name."""
    service, _, name = path.rpc.rpartition(".")
    if service != REST:
        return None
    for file in _TYPED_FILES:
        for typed in file.DESCRIPTOR.services_by_name.values():
            if (method := typed.methods_by_name.get(name)) is not None:
                return method.input_type, method.output_type
    return None


REST = "headrace.v1.RestService"
_SERVICERS: dict[str, type] = {
    "headrace.v1.OpenAIService": OpenAIService,
    "headrace.v1.AnthropicService": AnthropicService,
    "headrace.v1.ResponsesService": ResponsesService,
}
"""Those whose bodies are read by models."""
UPLOAD, CONTENT = (f"headrace.v1.FileService.{name}" for name in ("UploadFile", "GetFileContent"))
PING = "headrace.v1.ProbeService.Ping"
ADMIN = "headrace.admin.v1."
_BYTES = "google.api.HttpBody"
_ANY: Json = {"type": "object"}
_TEXT: Json = {"type": "string"}
ACCEPTED = "headrace.v1.Request"
"""What a call is answered with that runs on without its caller."""
_UPLOAD = object_schema(
    file={"type": "string", "contentMediaType": "application/octet-stream"},
    purpose=_TEXT,
    **{"expires_after[anchor]": _TEXT, "expires_after[seconds]": {"type": "integer"}},
) | {"required": ["file", "purpose"]}


class _Open(GenerateJsonSchema):
    """Claims nothing narrower than what is read."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        """Leave open what is converted before its type is checked, but of whole models."""
        if schema["schema"]["type"] in ("model", "model-fields"):
            return super().function_before_schema(schema)
        return {}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        made.pop("additionalProperties", None)
        return made

    def handle_invalid_for_json_schema(
        self, schema: core_schema.CoreSchema, error_info: str
    ) -> JsonSchemaValue:
        return {}


def paths() -> tuple[RestPath, ...]:
    """Return every path that the public services have."""
    files = FileDescriptorSet()
    for module in _FILES:
        module.DESCRIPTOR.CopyToProto(files.file.add())
    return read_paths(files.SerializeToString())


@cache
def open_api() -> bytes:
    """Return the document."""
    served = paths()
    described: dict[str, Json] = {}
    for path in served:
        operations = described.setdefault(path.path, {})
        operations[path.method.lower()] = _operation(path)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": metadata.version("headrace")},
        "paths": described,
        "components": {"schemas": _components(served)},
    }
    return json.dumps(document).encode()


def _operation(path: RestPath) -> Json:
    service, _, name = path.rpc.rpartition(".")
    operation: Json = {
        "operationId": re.sub(r"\W+", "_", f"{path.method.lower()}{path.path}"),
        "summary": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name),
        "tags": [service.rpartition(".")[2].removesuffix("Service")],
        "responses": _answers(path),
    }
    if parameters := list(_parameters(path)):
        operation["parameters"] = parameters
    if path.rpc == UPLOAD:
        form = {"multipart/form-data": {"schema": _UPLOAD}}
        operation["requestBody"] = {"required": True, "content": form}
    elif path.method in ("POST", "PATCH") and (body := _body(path)) is not None:
        content = {"application/json": {"schema": body}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _method(path: RestPath) -> MethodDescriptor:
    return Default().FindMethodByName(path.rpc)


def _parameters(path: RestPath) -> Iterator[Json]:
    """Yield the variables of the path, and the fields that only a query can give."""
    for name in re.findall(r"\{(\w+)\}", path.path):
        yield {"name": name, "in": "path", "required": True, "schema": _TEXT}
    if path.body == "*":
        return
    given = {path.body, *(field.partition(".")[0] for field in path.fields)}
    for field in _method(path).input_type.fields:
        schema = field_schema(field)
        if field.name not in given and "$ref" not in schema:
            yield {"name": field.name, "in": "query", "schema": schema}


def _body(path: RestPath) -> Json | None:
    """Return the schema of the body; None: the call has none."""
    if models := _models(path):
        return _any_of(models)
    if (messages := _messages(path)) is not None:
        return reference(messages[0])
    kind = _method(path).input_type
    if not path.rpc.startswith(ADMIN):
        # Why: what is left of a message when its path has been read may be nothing.
        return None if {field.name for field in kind.fields} == set(path.fields) else _ANY
    part = kind.fields_by_name.get(path.body)
    return reference(kind) if part is None else field_schema(part)


def _answer(path: RestPath) -> Json:
    kind, answers = _method(path).output_type, answers_of(path)
    if answers.whole:
        schema = _any_of(answers.whole)
    elif (messages := _messages(path)) is not None:
        schema = reference(messages[1])
    else:
        schema = _ANY if kind.full_name == _BYTES else reference(kind)
    whole: Json = {"application/json": {"schema": schema}}
    if path.rpc.endswith((".StreamGenerate", ".AttachRequest", ".WatchFleet")):
        events: Json = {"text/event-stream": {} if answers.whole else {"schema": schema}}
        return {"description": "Server-sent events; the data of each", "content": events}
    if answers.events:
        # As OpenAI's own document has it: the schema is that of the data of one event.
        events = {"text/event-stream": {"schema": _any_of(answers.events)}}
        return {"description": "Events if `stream` is true", "content": whole | events}
    if path.rpc == CONTENT:
        return {"description": "The bytes of the file", "content": {"application/octet-stream": {}}}
    if path.rpc == PING:
        return {"description": "OK", "content": {"text/plain": {}}}
    return {"description": "OK", "content": whole}


def _answers(path: RestPath) -> Json:
    """Return the answers of a path, by status."""
    described = {"200": _answer(path), "default": _refusal(path)}
    if path.rpc.endswith((".ChatCompletions", ".Completions", ".Generate", ".StreamGenerate")):
        content = {"application/json": {"schema": _schema(ACCEPTED)}}
        described["202"] = {"description": "It runs in the background", "content": content}
    return described


def _refusal(path: RestPath) -> Json:
    errors = errors_of(path)
    schema = _any_of(errors) if errors else _schema("google.rpc.Status")
    return {"description": "Refused", "content": {"application/json": {"schema": schema}}}


def _any_of(models: Sequence[type[BaseModel]]) -> Json:
    references, _ = _model_schemas()
    first, *others = [references[model, "validation"] for model in models]
    return {"anyOf": [first, *others]} if others else first


@cache
def _model_schemas() -> tuple[Mapping[Any, Json], Json]:
    """Return a reference to each model's schema, and the schemas by name."""
    models: dict[type[BaseModel], None] = {}
    for path in paths():
        answers = answers_of(path)
        used = (*_models(path), *answers.whole, *answers.events, *errors_of(path))
        models |= dict.fromkeys(used)
    references, made = models_json_schema(
        [(model, "validation") for model in models],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Open,
    )
    return references, made["$defs"]


def _schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _components(served: tuple[RestPath, ...]) -> Json:
    used = [each for path in served for each in _messages(path) or ()]
    kinds = [_method(path).output_type for path in served]
    kinds += [_method(path).input_type for path in served if path.rpc.startswith(ADMIN)]
    answers = [kind for kind in kinds if kind.full_name != _BYTES]
    _, made = _model_schemas()
    messages = schemas([*used, *answers, Status.DESCRIPTOR, Request.DESCRIPTOR])
    return dict(sorted((made | messages).items()))
