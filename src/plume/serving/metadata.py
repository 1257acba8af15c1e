"""Metadata that a client puts beside its things."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
