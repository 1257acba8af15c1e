"""The tokenizer of a model over HTTP, at the server's root, as vLLM has it and lm-eval asks for it."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from plume.errors import UserError
from plume.models.bundle import Bundle
from plume.serving.errors import invalid
from plume.serving.keys import Caller, Reader
from plume.serving.messages import ChatMessage, messages_of
from plume.serving.models import Loaded
from plume.serving.sampling import Body
from plume.serving.service import Service, ServiceDep
from plume.types import Message

router = APIRouter(tags=["tokens"])


class TokenizerInfo(BaseModel):
    """The names of the special tokens; None for those there are not. `bos_token` is what a text begins with as the
    model has learnt it, also where its tokenizer has no such name."""

    model: str
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    chat_template: str | None
    vocab_size: int
    max_model_len: int


class TokenizeBody(Body):
    """A text, or messages: the prompt that asks for the next one, as lm-eval hands conversations over. Without `model`
    the first that is served is meant."""

    prompt: str | Annotated[list[ChatMessage], Field(min_length=1)]
    add_special_tokens: bool | None = None
    model: str | None = None


class Tokenized(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizeBody(Body):
    tokens: list[Annotated[int, Field(ge=0, lt=2**31)]]
    model: str | None = None


class Detokenized(BaseModel):
    prompt: str


@router.get("/tokenizer_info")
async def tokenizer_info(service: ServiceDep, caller: Reader, model: str | None = None) -> TokenizerInfo:
    """The special tokens and the chat template of a model, of the first that is served where none is named."""
    loaded = await _loaded(service, caller, model)
    names = loaded.bundle.tokenizer.special_token_names
    begins = names.get("bos_token") or await loaded.prepare(partial(_before_texts, loaded.bundle))
    return TokenizerInfo(
        model=loaded.entry.id,
        bos_token=begins,
        eos_token=names.get("eos_token"),
        pad_token=names.get("pad_token"),
        unk_token=names.get("unk_token"),
        chat_template=_standing_alone(loaded.bundle) if loaded.bundle.own_template else None,
        vocab_size=loaded.bundle.tokenizer.vocab_size,
        max_model_len=loaded.bundle.model.context_length,
    )


@router.post("/tokenize")
async def tokenize(body: TokenizeBody, service: ServiceDep, caller: Reader) -> Tokenized:
    """The ids of a text, with what the tokenizer adds by default unless that is declined. A special token that is
    written in it counts as such: the text of a rendered conversation comes out as that conversation."""
    loaded = await _loaded(service, caller, body.model)
    ids = await loaded.prepare(partial(_ids, body, loaded.bundle))
    return Tokenized(tokens=ids, count=len(ids), max_model_len=loaded.bundle.model.context_length)


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, service: ServiceDep, caller: Reader) -> Detokenized:
    """The text of ids, special tokens left out."""
    loaded = await _loaded(service, caller, body.model)
    size = loaded.bundle.tokenizer.vocab_size
    if body.tokens and max(body.tokens) >= size:
        raise invalid("tokens", f"tokens: {max(body.tokens)} is not the id of one of {size} tokens")
    return Detokenized(prompt=await loaded.prepare(partial(loaded.bundle.tokenizer.decode, body.tokens)))


def _ids(body: TokenizeBody, bundle: Bundle) -> list[int]:
    if isinstance(body.prompt, str):
        added = body.add_special_tokens is not False
        return bundle.tokenizer.encode(body.prompt, add_special_tokens=added, specials=True)
    messages = messages_of(body.prompt)
    return list(bundle.template.encode(messages, bundle.tokenizer, reply=messages[-1].role != "assistant").ids)


async def _loaded(service: Service, caller: Caller, model: str | None) -> Loaded:
    return await service.models.open(model or service.models.default(caller.tenant).id, caller.tenant)


def _before_texts(bundle: Bundle) -> str | None:
    """The special token before a text that answers nothing, where the template writes one and nothing else."""
    try:
        read = bundle.template.encode((Message("assistant", "a"),), bundle.tokenizer)
    except UserError:  # some templates want a question first
        return None
    before = read.ids[: read.trained.index(True)]
    specials = {id: text for text, id in bundle.tokenizer.special_tokens.items()}
    return specials.get(before[0]) if len(before) == 1 else None


def _standing_alone(bundle: Bundle) -> str:
    """The chat template with what transformers' renderer brings and a bare Jinja lacks: the special tokens' names, and
    the marks around replies, which mean nothing to whoever asks."""
    names = {"bos_token": "", **bundle.tokenizer.special_token_names}
    bound = "".join(
        f"{{%- set {name} = {name} | default({json.dumps(text, ensure_ascii=False)}) -%}}"
        for name, text in names.items()
    )
    unmarked = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", bundle.template.source)
    return bound + re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", unmarked)
