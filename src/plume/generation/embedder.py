"""Embedders for recall: from a loaded model, or from a directory of sentence-transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from plume.errors import UserError
from plume.generation.embed import embed
from plume.memory.recall.vectors import Embedder, Matrix
from plume.models.bundle import Bundle

_BATCH = 32  # texts read together
_MOST_TOKENS = 512  # of a text: its beginning says what it is about
_SAMPLE = 4096  # numbers of each weight that its fingerprint reads


def model_embedder(bundle: Bundle) -> Embedder:
    """Vectors as `/v1/embeddings` gives them, of the beginning of each text."""

    def vectors(texts: Sequence[str]) -> Matrix:
        most = min(_MOST_TOKENS, bundle.model.context_length)
        rows = [(bundle.tokenizer.encode(text) or [bundle.tokenizer.pad_id])[:most] for text in texts]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))  # like lengths together: less padding
        made: dict[int, Matrix] = {}
        for first in range(0, len(order), _BATCH):
            places = order[first : first + _BATCH]
            for place, row in zip(places, embed(bundle, [rows[place] for place in places]).numpy(), strict=True):
                made[place] = row
        return np.stack([made[place] for place in range(len(rows))])

    return Embedder(f"plume:{_fingerprint(bundle)}", vectors)


def sentence_embedder(directory: Path) -> Embedder:
    """A model of sentence-transformers that lies here. Raises UserError where there is none, or the library is not."""
    if not (directory / "modules.json").is_file():
        raise UserError(f"{directory} holds no model of sentence-transformers", "name a directory with modules.json")
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError:
        hint = "pip install 'plume-lm[sentence-transformers]'"
        raise UserError(f"{directory}: the library sentence-transformers is missing", hint) from None
    model = SentenceTransformer(str(directory), device="cpu", local_files_only=True)

    def vectors(texts: Sequence[str]) -> Matrix:
        return np.asarray(model.encode(list(texts), show_progress_bar=False), np.float32)

    return Embedder(f"sentence-transformers:{_digest(dict(model.named_parameters()))}", vectors)


def _fingerprint(bundle: Bundle) -> str:
    return _digest(dict(bundle.model.named_parameters()))


@torch.no_grad()
def _digest(weights: dict[str, torch.nn.Parameter]) -> str:
    """Training changes every weight, so a sample of each tells models apart."""
    hashed = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, len(flat) // _SAMPLE)].float().cpu().contiguous().numpy()
        hashed.update(f"{name} {tuple(weight.shape)}".encode() + sample.tobytes())
    return hashed.hexdigest()[:32]
