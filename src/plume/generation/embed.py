"""A text as a point: the mean of what the model has in mind while reading it.

Shape suffixes: B batch, T time, C hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from plume.errors import UserError
from plume.generation.scoring import padded
from plume.models.bundle import Bundle


@torch.inference_mode()
def embed(bundle: Bundle, rows: Sequence[Sequence[int]]) -> Tensor:
    """One vector of length 1 for each row of ids, (B, C), float32 on the CPU: the mean of the last hidden states over
    the row's tokens. Special tokens are read but not counted, unless a row has no others. Rows are read together.

    Mean pooling as in Reimers and Gurevych, "Sentence-BERT" (2019). Raises UserError for an empty row, or one longer
    than the context.
    """
    context = bundle.model.context_length
    for ids in rows:
        if not ids:
            raise UserError("there is nothing to embed", "give a text, or at least one token")
        if len(ids) > context:
            raise UserError(f"{len(ids)} tokens are more than the model's context of {context}", "shorten the text")
    device = next(bundle.model.parameters()).device
    bundle.model.train(False)
    lengths_B = torch.tensor([len(ids) for ids in rows], device=device)
    hidden_BTC, _ = bundle.model(padded(rows, bundle, device), None, lengths_B)
    means_BC = torch.stack(
        [hidden_TC[_counted(bundle, ids)].float().mean(dim=0) for hidden_TC, ids in zip(hidden_BTC, rows, strict=True)]
    )
    return F.normalize(means_BC, dim=-1).cpu()


def _counted(bundle: Bundle, ids: Sequence[int]) -> list[int]:
    specials = set(bundle.tokenizer.special_tokens.values())
    return [place for place, id in enumerate(ids) if id not in specials] or list(range(len(ids)))
