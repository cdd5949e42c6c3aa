"""An application that has only proto/ and grpc, with its own stubs and process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers.running_mesh import RunningMesh

PROTO = Path(__file__).parents[2] / "proto"

APPLICATION = """
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from headrace.v1 import generation_pb2 as pb
from headrace.v1 import generation_pb2_grpc as rpc

channel = grpc.insecure_channel(sys.argv[1])
health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
assert health.status == health_pb2.HealthCheckResponse.SERVING
found = ProtoReflectionDescriptorDatabase(channel).get_services()
assert "headrace.v1.GenerationService" in found, found

generation = rpc.GenerationServiceStub(channel)
request = pb.GenerateRequest(model="scripted", prompt="Hello", n=2, parameters={"max_tokens": 8})
events = list(generation.StreamGenerate(request))
assert [e.WhichOneof("event") for e in events[:1] + events[-1:]] == ["started", "finish"]
texts = ["", ""]
for event in events[1:-1]:
    texts[event.delta.choice] += event.delta.text
whole = generation.Generate(
    pb.GenerateRequest(
        model="scripted",
        prompt="Hello",
        n=2,
        seed=events[0].started.seed,
        parameters={"max_tokens": 8},
    )
)
assert [choice.text for choice in whole.choices] == texts
assert events[-1].finish.usage.output_tokens == 16

try:
    generation.Generate(pb.GenerateRequest(model="scripted", prompt="", parameters={"top_p": 7}))
except grpc.RpcError as error:
    kinds = [detail.type_url.rsplit(".", 1)[1] for detail in rpc_status.from_call(error).details]
    print(error.code().name, *kinds)
"""


def test_an_application_with_its_own_stubs_streams_generates_and_gets_error_details(
    mesh: RunningMesh, tmp_path: Path
) -> None:
    protos = [str(p.relative_to(PROTO)) for p in (PROTO / "headrace" / "v1").glob("*.proto")]
    out = (f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTO), *out, *protos]
    subprocess.run(protoc, check=True)
    (tmp_path / "application.py").write_text(APPLICATION)
    # The folder of a script comes first: `headrace` is imported from its stubs, not this project.
    ran = subprocess.run(
        [sys.executable, "application.py", mesh.url.removeprefix("http://")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.stdout.split() == ["INVALID_ARGUMENT", "ErrorInfo", "BadRequest"], ran.stderr
