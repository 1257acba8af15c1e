"""Parameters that completions and chat share, and what the engine makes of them. What is not here is refused."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from plume.models.bundle import Bundle
from plume.serving.errors import ApiError, invalid
from plume.types import Sampling

_MOST_ANSWERS = 128
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Stop = Annotated[str, Field(min_length=1)]
_Stops = Annotated[list[_Stop], Field(max_length=4)]


class Body(BaseModel):
    """A request as it must be: no other keys, no numbers written as text."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _is_text(self) -> Self:
        """JSON can write half a surrogate pair, which no tokenizer and no store can take."""
        for name in self.model_fields_set:
            if not _sayable(getattr(self, name, None)):
                raise ValueError(f"{name} is not Unicode text: it has half a surrogate pair")
        return self


def _sayable(value: Any) -> bool:
    if isinstance(value, str):
        return _HALF_PAIR.search(value) is None
    if isinstance(value, list):
        return all(map(_sayable, value))
    return all(_sayable(one) for pair in value.items() for one in pair) if isinstance(value, dict) else True


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class SamplingBody(Body):
    """`top_k`, `min_p` and `repetition_penalty` are not OpenAI's; they mean what they do in transformers and vLLM."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    n: Annotated[int, Field(ge=1, le=_MOST_ANSWERS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: _Stop | _Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    prompt_cache_key: str | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def sampling_of(
    body: SamplingBody, bundle: Bundle, *, max_new_tokens: int, logprobs: int | None = None, best_of: int | None = None
) -> Sampling:
    """The engine's settings; what the body leaves out is the model's own. Without a seed, chance is new each time.
    Raises ApiError for what cannot be meant."""
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "stream_options needs stream: true")
    n = body.n or 1
    if best_of is not None and best_of < n:
        raise invalid("best_of", f"best_of is {best_of}, and n is {n}: the best {n} of fewer cannot be given")
    given = {
        name: value
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "frequency_penalty",
            "presence_penalty",
        )
        if (value := getattr(body, name)) is not None
    }
    return replace(
        bundle.sampling,
        **given,
        logit_bias=_bias(body, bundle),
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        seed=secrets.randbits(62) if body.seed is None else body.seed % 2**62,
        n=n,
        best_of=best_of,
        max_new_tokens=max_new_tokens,
        logprobs=logprobs,
    )


def scope_of(body: SamplingBody, tenant: str) -> str:
    """Whose earlier prompts may make this one faster: the caller's own, and of those what it groups by a key."""
    return f"{tenant}\0{body.prompt_cache_key or ''}"


def room_for(prompt: int, bundle: Bundle, param: str) -> int:
    """How many tokens an answer may have. Raises ApiError where the prompt leaves no room."""
    context = bundle.model.context_length
    if prompt < context:
        return context - prompt
    raise ApiError(
        400,
        f"the model's context is {context} tokens; {prompt} in {param} leave no room for an answer",
        param=param,
        code="context_length_exceeded",
    )


def _bias(body: SamplingBody, bundle: Bundle) -> dict[int, float]:
    found = {}
    for text, bias in (body.logit_bias or {}).items():
        if not text.isdecimal() or int(text) >= bundle.model.vocab_size:
            raise invalid("logit_bias", f"logit_bias: {text!r} is not the id of a token of this model")
        found[int(text)] = bias
    return found
