"""What `headrace up` prints once the mesh is ready: a sample answer, and how to send requests."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from headrace.cli.console.options import MeshTarget
from headrace.client import AsyncClient, Prompt, Sampling
from headrace.errors import HeadraceError, InvalidApiKey
from headrace.rpc.addresses import is_https
from headrace.v1.common_pb2 import ModelTask

SAMPLE_QUESTION = "Who are you?"
_SAMPLE_TOKENS = 64


async def show_welcome(mesh: MeshTarget, models: Sequence[str], *, needs_keys: bool) -> None:
    """Stream one answer of the first model to the terminal, then print example requests."""
    model, chats = models[0], True
    url, key_file = mesh.url, mesh.state_dir.cli_key if needs_keys else None
    trust = _how_to_trust(mesh.state_dir.tls / "ca.crt") if is_https(url) else ""
    try:
        async with mesh.async_client() as client:
            (card,) = [card for card in await client.models() if card.name == model]
            if card.task != ModelTask.MODEL_TASK_GENERATE:
                print(trust + rank_examples(url, model, key_file), flush=True)
                return
            chats = card.chat
            await _stream_sample(client, model, chats=chats)
    except InvalidApiKey:
        print(f"\n(no sample: {key_file} has no valid key; `headrace key create` makes one)")
    except HeadraceError as error:
        # The canary has passed; a failed sample must not end the mesh.
        print(f"\n(no sample: {error})")
    print(trust + examples(url, model, key_file, chats=chats), flush=True)


async def _stream_sample(client: AsyncClient, model: str, *, chats: bool) -> None:
    prompt: Prompt = [("user", SAMPLE_QUESTION)] if chats else SAMPLE_QUESTION
    print(f"\n> {SAMPLE_QUESTION}")
    sampling = Sampling(max_tokens=_SAMPLE_TOKENS, temperature=0.0)
    async for event in client.stream(prompt, model=model, **sampling):
        sys.stdout.write(event.delta.text)
        sys.stdout.flush()
    print()


def in_shell(model: str) -> str:
    """Return the name as JSON, escaped for a shell's single quotes."""
    return json.dumps(model, ensure_ascii=False).replace("'", "'\\''")


def _key_header(key_file: Path | None) -> str:
    """Return what curl needs besides, a line; empty where no keys are required."""
    if key_file is None:
        return ""
    # Why not the key: terminals have scrollbacks, and screens are looked at.
    given = f"$(cat {shlex.quote(str(key_file))})" if key_file.exists() else "$HEADRACE_API_KEY"
    return f' \\\n    -H "authorization: Bearer {given}"'


def _key_in_python(key_file: Path | None) -> str:
    if key_file is None:
        return '"none"'
    if key_file.exists():
        return f"open({str(key_file)!r}).read().strip()"
    return 'os.environ["HEADRACE_API_KEY"]'


def _how_to_trust(ca: Path) -> str:
    return f"""
Certificates are signed by an authority of the mesh. The examples below trust it after

  export SSL_CERT_FILE={shlex.quote(str(ca))}
"""


def rank_examples(url: str, model: str, key_file: Path | None) -> str:
    """Return the text for models that embed or score; both can rerank."""
    return f"""
The mesh is up at {url} (models: {url}/v1/models). Ctrl-C ends it. Now, in another terminal:

  curl {url}/v1/rerank -H 'content-type: application/json'{_key_header(key_file)} \\
    -d '{{"model": {in_shell(model)}, "query": "Where is the mill?",
         "documents": ["It stands by the river.", "Cats sleep a lot."]}}'

Models that embed answer /v1/embeddings as well.
"""


def examples(url: str, model: str, key_file: Path | None, *, chats: bool) -> str:
    """Return how to send requests to a model that generates.

    Args:
        key_file: with a key; if it is not there, the key is the environment's. None: no keys are
            required.
    """
    path, field, text = "completions", "prompt", "text"
    question: object = SAMPLE_QUESTION
    if chats:
        path, field, text = "chat/completions", "messages", "delta.content"
        question = [{"role": "user", "content": SAMPLE_QUESTION}]
    call, value = path.replace("/", "."), json.dumps(question)
    return f"""
The mesh is up at {url} (models: {url}/v1/models). Ctrl-C ends it. Now, in another terminal:

  curl {url}/v1/{path} -H 'content-type: application/json'{_key_header(key_file)} \\
    -d '{{"model": {in_shell(model)}, "{field}": {value}}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key={_key_in_python(key_file)})
  for chunk in client.{call}.create(model={json.dumps(model, ensure_ascii=False)}, stream=True,
      {field}={value}):
      print(chunk.choices[0].{text} or "", end="", flush=True)
"""
