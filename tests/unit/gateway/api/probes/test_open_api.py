"""The description of the REST paths."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from google.protobuf import json_format
from openapi_spec_validator import OpenAPIV31SpecValidator

from headrace.supervisor.servers import assets
from headrace.supervisor.servers.rest_paths import read_paths
from headrace.v1.generation_pb2 import GenerateRequest
from headrace_gateway.api.bodies.generation import ChatBody, parse
from headrace_gateway.api.probes.open_api import open_api

LARGEST = 256 * 1024
DOCUMENT: dict[str, Any] = json.loads(open_api())


def body_of(path: str) -> dict[str, Any]:
    """Schema of a path's body, with what it refers to."""
    operation = DOCUMENT["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return {**schema, "components": DOCUMENT["components"]}


def test_it_is_valid_openapi_and_bounded() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert len(open_api()) <= LARGEST


def test_it_has_every_path_that_the_edge_serves() -> None:
    served = read_paths(assets.descriptor_set().read_bytes())
    assert {(path.path, path.method.lower()) for path in served} == {
        (path, method) for path, methods in DOCUMENT["paths"].items() for method in methods
    }


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"stop": "one"},
        {"stop": ["one", "two"]},
        {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5, "seed": 1},
    ],
)
def test_what_the_gateway_takes_the_document_takes(extra: dict[str, Any]) -> None:
    body = {"model": "valley", "messages": [{"role": "user", "content": "hi"}], **extra}
    parse(ChatBody, json.dumps(body).encode(), max_bytes=10_000)
    jsonschema.validate(body, body_of("/v1/chat/completions"))


def test_a_body_without_what_it_must_have_is_none() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": "valley"}, body_of("/v1/chat/completions"))


def test_the_native_messages_are_as_protobuf_prints_them() -> None:
    request = GenerateRequest(prompt="hi", prompt_token_ids=[1, 2], model="valley")
    request.parameters.max_tokens = 3
    request.parameters.temperature = 0.5
    request.timeout.FromSeconds(3)
    printed = json_format.MessageToDict(request, preserving_proto_field_name=True)
    schema = body_of("/v2/models/{model}:generate")
    jsonschema.validate(printed, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(printed | {"prompt": 7}, schema)
