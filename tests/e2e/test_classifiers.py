"""A real classifier behind the whole mesh moderates as the plain model sorts."""

from __future__ import annotations

from pathlib import Path

import httpx
import openai
import pytest
import torch

from helpers.fresh_mesh import fresh_mesh
from helpers.tiny_encoders import save_encoder, text_input, tiny_encoder

LABELS = ("toxic", "identity_hate", "neutral")
TEXT = "the river and the mill"


@pytest.mark.timeout(150)
async def test_a_classifier_labels_and_moderates(tmp_path: Path) -> None:
    plain = tiny_encoder(labels=LABELS)
    folder = save_encoder(tmp_path / "sorts", plain)
    with torch.inference_mode():
        ids = torch.tensor([text_input(0, TEXT).prompt_ids])
        expected = plain(input_ids=ids).logits[0].softmax(dim=0).tolist()
    options = ("--engine", "transformers", "--model", f"{folder}=sorts", "--workers", "1")
    async with (
        fresh_mesh(tmp_path / "mesh", *options) as mesh,
        httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as http,
        openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="x", max_retries=0) as client,
    ):
        labelled = (await http.post("/classify", json={"model": "sorts", "input": TEXT})).json()
        assert labelled["data"][0]["probs"] == pytest.approx(expected, abs=2e-5)
        (result,) = (await client.moderations.create(input=TEXT)).results
        scores = result.category_scores
        assert (scores.harassment, scores.hate) == pytest.approx(expected[:2], abs=2e-5)
        assert result.flagged == (max(expected[:2]) >= 0.5)
