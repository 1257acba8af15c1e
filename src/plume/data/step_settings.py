"""What each step of a preparation can be told."""

from __future__ import annotations

import string
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, model_validator

TYPES = ("text", "integer", "number", "boolean", "date", "datetime")
_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
Column = Annotated[str, Field(min_length=1)]


def _known_type(text: str) -> str:
    if text not in TYPES and "%" not in text:
        raise ValueError(f"must be {', '.join(TYPES)}, or the format of a date such as %d/%m/%Y")
    return text


def _template(text: str) -> str:
    template_parts(text)
    return text


def template_parts(text: str) -> list[tuple[str, str | None]]:
    """Pairs of literal text and the column after it (None at the end). Raises ValueError."""
    parts: list[tuple[str, str | None]] = []
    try:
        for literal, column, form, conversion in string.Formatter().parse(text):
            if form or conversion or column == "":
                raise ValueError("between braces stands the name of a column and nothing else")
            parts.append((literal, column))
    except ValueError as error:
        raise ValueError(f"{error}; for a brace write it twice") from None
    return parts


Template = Annotated[str, Field(min_length=1), AfterValidator(_template)]


class Constant(BaseModel):
    """A value for what is missing."""

    model_config = _STRICT

    constant: StrictBool | StrictInt | StrictFloat | str


class Standard(BaseModel):
    """A standard scaling that is known already: (x - mean) / std."""

    model_config = _STRICT

    mean: float
    std: float = Field(gt=0)


class MinMax(BaseModel):
    """A min-max scaling that is known already: (x - min) / (max - min)."""

    model_config = _STRICT

    min: float
    max: float

    @model_validator(mode="after")
    def _ordered(self) -> MinMax:
        if self.min >= self.max:
            raise ValueError("`min` must be below `max`")
        return self


class Duplicates(BaseModel):
    """Which rows count as the same (all columns when `subset` is left out) and which of them stays."""

    model_config = _STRICT

    subset: list[Column] | None = Field(default=None, min_length=1)
    keep: Literal["first", "last"] = "first"


class Build(BaseModel):
    """Templates of the question and the answer; a list of columns makes an answer in JSON."""

    model_config = _STRICT

    prompt: Annotated[str, Field(min_length=1), AfterValidator(_template)]
    completion: (
        Annotated[str, Field(min_length=1), AfterValidator(_template)] | Annotated[list[Column], Field(min_length=1)]
    )


class Redact(BaseModel):
    """What is taken out (everything when `kinds` is left out), out of which columns (all with text in them), and the
    file with the names, one a line."""

    model_config = _STRICT

    kinds: list[str] = Field(default=["all"], min_length=1)
    names: str | None = Field(default=None, min_length=1)
    columns: list[Column] | None = Field(default=None, min_length=1)


class Step(BaseModel):
    """One step: exactly one of these keys."""

    model_config = _STRICT

    rename: dict[Column, Column] | None = None
    types: dict[Column, Annotated[str, AfterValidator(_known_type)]] | None = None
    missing: dict[Column, Literal["drop", "median", "mode"] | Constant] | None = None
    derive: dict[Column, str] | None = None
    duplicates: Duplicates | None = None
    scale: dict[Column, Literal["standard", "min-max"] | Standard | MinMax] | None = None
    select: list[Column] | None = None
    build: Build | None = None
    redact: Redact | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Step:
        if len(self.model_fields_set) != 1:
            raise ValueError("a step has exactly one key, such as `types`; begin each with its own dash")
        if not self.setting and self.name != "duplicates":
            raise ValueError(f"`{self.name}` is empty")
        return self

    @property
    def name(self) -> str:
        return next(iter(self.model_fields_set))

    @property
    def setting(self) -> Any:
        """What stands after the step's name."""
        return getattr(self, self.name)
