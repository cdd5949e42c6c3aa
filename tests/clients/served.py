"""The mesh that all clients share: keys are required, and each kind of model is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.supervisor.state.state_dir import StateDir
from helpers.running_mesh import start, stop
from helpers.tiny_encoders import save_encoder, tiny_encoder

START_S = 400
"""Four processes import torch first, which a busy machine takes its time for."""
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "HEADRACE_REQUIRE")
_PROTO = Path(__file__).parents[2] / "proto"
_CONTEXT_TOKENS = 512
_MODERATED = ("toxic", "identity_hate", "neutral")


@contextmanager
def served(folder: Path) -> Iterator[dict[str, str]]:
    """Start the mesh with its state in `folder`; yield the environment of the clients' tests.

    The models are `valley`, which talks and calls tools, and random ones that embed, score and
    moderate: their answers have the right form and no meaning.
    """
    encoders = {
        "embedder": tiny_encoder(max_position_embeddings=_CONTEXT_TOKENS),
        "reranker": tiny_encoder(scores=True, max_position_embeddings=_CONTEXT_TOKENS),
        "moderator": tiny_encoder(labels=_MODERATED, max_position_embeddings=_CONTEXT_TOKENS),
    }
    models = ["valley"]
    for name, model in encoders.items():
        models.append(f"{save_encoder(folder / name, model)}={name}")
    options = [word for model in models for word in ("--model", model)]
    mesh = start(folder / "mesh", "--auth", "keys", *options, within_s=START_S)
    try:
        yield _environment(folder, mesh.url, StateDir(mesh.folder).cli_key.read_text().strip())
    finally:
        stop(mesh)


def _environment(folder: Path, url: str, key: str) -> dict[str, str]:
    """Without what this machine has set for these clients, and with an empty home."""
    home = folder / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "HEADRACE_BASE_URL": url,
        "HEADRACE_API_KEY": key,
        "HEADRACE_MODEL": "valley",
        "HEADRACE_PROTO": str(_PROTO),
        "HEADRACE_EMBEDDING_MODEL": "embedder",
        "HEADRACE_RERANK_MODEL": "reranker",
        "HEADRACE_MODERATION_MODEL": "moderator",
    }
