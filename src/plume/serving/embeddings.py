"""POST /v1/embeddings: texts as points, near one another where the model reads them alike."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch.nn.functional as F
from fastapi import APIRouter, Request
from openai.types import CreateEmbeddingResponse, Embedding
from openai.types.create_embedding_response import Usage
from pydantic import Field
from starlette.responses import JSONResponse, Response
from torch import Tensor

from plume.generation.embed import embed
from plume.models.bundle import Bundle
from plume.serving.answers import unless_gone
from plume.serving.errors import ApiError, invalid
from plume.serving.keys import Writer
from plume.serving.reading import read_all
from plume.serving.sampling import Body
from plume.serving.service import ServiceDep

router = APIRouter(tags=["embeddings"])
_INPUTS = 2048

_Text = Annotated[str, Field(min_length=1)]
_Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(fail_fast=True, min_length=1)]
_Texts = Annotated[list[_Text], Field(fail_fast=True, min_length=1)]
_Rows = Annotated[list[_Ids], Field(fail_fast=True, min_length=1)]


class EmbeddingBody(Body):
    """`dimensions` are the first so many, brought back to length 1."""

    model: str
    input: _Text | _Texts | _Ids | _Rows
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


class _Embedding(Embedding):
    """As it is sent: the client turns base64 into numbers."""

    embedding: list[float] | str  # type: ignore[assignment]


class _Embeddings(CreateEmbeddingResponse):
    data: list[_Embedding]  # type: ignore[assignment]


@router.post("/v1/embeddings", response_model=_Embeddings)
async def create(body: EmbeddingBody, request: Request, service: ServiceDep, caller: Writer) -> Response:
    """A vector of length 1 for each text or row of token ids: the mean of the model's last hidden states over its
    tokens. As numbers, or with `base64` as the bytes of little-endian float32."""
    request.state.model = body.model
    loaded = await service.models.open(body.model, caller.tenant)
    rows = await loaded.prepare(partial(_rows, body, loaded.bundle))
    tokens = sum(map(len, rows))
    service.limits.tokens(caller, tokens)
    reading = read_all(service, loaded, rows, partial(embed, loaded.bundle), len)
    vectors = await unless_gone(request, reading)
    request.state.usage = {"prompt_tokens": tokens}
    shown = [_cut(vector, body.dimensions) for vector in vectors]
    return JSONResponse(_rendered(body, shown, tokens))


def _rows(body: EmbeddingBody, bundle: Bundle) -> list[list[int]]:
    """The ids of each input; those that come as ids are read as they are. Raises ApiError."""
    given = body.input
    if isinstance(given, str):
        several: Sequence[str | list[int]] = [given]
    elif isinstance(given[0], int):
        several = [[id for id in given if isinstance(id, int)]]
    else:
        several = [one for one in given if not isinstance(one, int)]
    if len(several) > _INPUTS:
        raise invalid("input", f"input has {len(several)} texts; at most {_INPUTS} are taken together")
    encode = partial(bundle.tokenizer.encode, add_special_tokens=True)
    rows = [encode(one) if isinstance(one, str) else one for one in several]
    context = bundle.model.context_length
    for number, ids in enumerate(rows):
        where = "input" if isinstance(given, str) or isinstance(given[0], int) else f"input[{number}]"
        if not ids:
            raise invalid(where, f"{where}: the text has no tokens")
        if max(ids) >= bundle.model.vocab_size:
            raise invalid(where, f"{where}: {max(ids)} is not the id of a token of this model")
        if len(ids) > context:
            message = f"the model's context is {context} tokens; {where} has {len(ids)}"
            raise ApiError(400, message, param="input", code="context_length_exceeded")
    return rows


def _cut(vector_C: Tensor, dimensions: int | None) -> list[float]:
    if dimensions is None:
        return vector_C.tolist()
    if dimensions > len(vector_C):
        raise invalid("dimensions", f"dimensions is {dimensions}; this model's vectors have {len(vector_C)}")
    return F.normalize(vector_C[:dimensions], dim=0).tolist()


def _rendered(body: EmbeddingBody, vectors: list[list[float]], tokens: int) -> dict[str, object]:
    made = CreateEmbeddingResponse(
        object="list",
        model=body.model,
        data=[Embedding(object="embedding", index=number, embedding=one) for number, one in enumerate(vectors)],
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    ).model_dump()
    if body.encoding_format == "base64":
        for one in made["data"]:  # the package's type has floats alone, though its client asks for this
            one["embedding"] = base64.b64encode(struct.pack(f"<{len(one['embedding'])}f", *one["embedding"])).decode()
    return made
