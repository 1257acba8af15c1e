"""Generation settings as people give them: read, bounded, and free of contradictions. A setting that cannot do what
it says is refused with the reason; one that does something other than it seems to is warned about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from plume.errors import UserError
from plume.recipe import unknown_key
from plume.types import Sampling

_DEFAULT = Sampling()
_COLDEST = 1e-6  # scores divided by less may be larger than float32 can hold
_SAMPLED = ("top_k", "top_p", "min_p", "typical_p", "seed")  # what only matters when a token is drawn


@dataclass(frozen=True, slots=True)
class _Bound:
    allows: Callable[[Any], bool]
    words: str


def _whole(low: int, high: int = 2**63 - 1) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value in range(low, high + 1)


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[Any], bool]:
    def allows(value: Any) -> bool:
        if type(value) not in (int, float) or not math.isfinite(value):
            return False
        return bool(value > low if above else value >= low) and bool(value <= high)

    return allows


def _either(*choices: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(allows(value) for allows in choices)


def _all(allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda parts: isinstance(parts, tuple | list) and all(allows(part) for part in parts)


def _nothing(value: Any) -> bool:
    return value is None


_BOUNDS = {
    "max_new_tokens": _Bound(_whole(1), "a whole number of at least 1"),
    "temperature": _Bound(_either(_number(0, 0), _number(_COLDEST)), f"0 (greedy), or {_COLDEST:g} and more"),
    "top_k": _Bound(_whole(0), "0 (off) or a number of tokens"),
    "top_p": _Bound(_number(0, 1, above=True), "above 0 and at most 1 (off)"),
    "min_p": _Bound(_number(0, 1), "from 0 (off) to 1"),
    "typical_p": _Bound(_number(0, 1, above=True), "above 0 and at most 1 (off)"),
    "repetition_penalty": _Bound(_number(0.01, 100), "from 0.01 to 100; 1 is off, 1.1 is mild"),
    "presence_penalty": _Bound(_number(-2, 2), "from -2 to 2; 0 is off"),
    "frequency_penalty": _Bound(_number(-2, 2), "from -2 to 2; 0 is off"),
    "no_repeat_ngram_size": _Bound(_whole(0), "0 (off) or a number of tokens"),
    "encoder_no_repeat_ngram_size": _Bound(_whole(0), "0 (off) or a number of tokens"),
    "logit_bias": _Bound(
        lambda bias: (
            isinstance(bias, dict) and all(map(_whole(0), bias)) and all(map(_number(-100, 100), bias.values()))
        ),
        "token ids, each with a number from -100 to 100: {42: -100}",
    ),
    "stop": _Bound(_all(lambda text: isinstance(text, str) and text != ""), "a text, or a list, none empty"),
    "stop_token_ids": _Bound(_all(_whole(0)), "a token id, or a list of them"),
    "seed": _Bound(_whole(0), "a whole number from 0 to 2**63 - 1"),
    "n": _Bound(_whole(1), "a whole number of at least 1"),
    "best_of": _Bound(_either(_nothing, _whole(1)), "a whole number of at least 1"),
    "num_beams": _Bound(_whole(1), "1 (off) or a number of beams"),
    "length_penalty": _Bound(_number(-math.inf), "a number; above 0 favours longer answers"),
    "early_stopping": _Bound(lambda value: value in ("never",) or type(value) is bool, "true, false or never"),
    "prompt_lookup_num_tokens": _Bound(_whole(0), "0 (off) or a number of tokens"),
    "logprobs": _Bound(_either(_nothing, _whole(0, 20)), "a number of alternatives from 0 to 20"),
}


def make_sampling(settings: Mapping[str, Any], defaults: Sampling, origin: str = "--set") -> Sampling:
    """Sampling from settings as YAML or JSON gives them; `origin` names them in errors.

    Raises UserError for an unknown key, a wrong value, or one that contradicts another or has no effect.
    """
    known = [field.name for field in fields(Sampling)]
    for key in settings:
        if key not in known:
            raise unknown_key(key, known, origin)
    values = {key: _read(key, value) for key, value in settings.items()}
    sampling = replace(defaults, **values)
    given = {name for name in values if name == "seed" or values[name] != getattr(_DEFAULT, name)}
    _check(sampling, given, f"{origin} ", settings)
    return sampling


def check(sampling: Sampling) -> None:
    """Raise UserError for a wrong value, or one that contradicts another or has no effect. A seed alone may stand at
    temperature 0: programs give one to every answer."""
    names = (field.name for field in fields(Sampling) if field.name != "seed")
    _check(sampling, {name for name in names if getattr(sampling, name) != getattr(_DEFAULT, name)}, "", {})


def _check(sampling: Sampling, given: set[str], origin: str, settings: Mapping[str, Any]) -> None:
    for name, bound in _BOUNDS.items():
        if not bound.allows(getattr(sampling, name)):
            raise UserError(f"{origin}{name}={settings.get(name, getattr(sampling, name))!r}: must be {bound.words}")
    for message, hint in _contradictions(sampling, given):
        raise UserError(f"{origin}{message}", hint)


def check_for(sampling: Sampling, vocab_size: int) -> None:
    """Raise UserError for token ids that a vocabulary of this size does not have."""
    for name, ids in (("logit_bias", sampling.logit_bias), ("stop_token_ids", sampling.stop_token_ids)):
        beyond = [id for id in ids if id >= vocab_size]
        if beyond:
            raise UserError(
                f"{name}: there is no token {beyond[0]}; the vocabulary has {vocab_size}, from 0 to {vocab_size - 1}",
                "ids belong to one tokenizer: look them up in this model's",
            )


def check_constrained(sampling: Sampling) -> None:
    """Raise UserError for settings that can leave an answer of a required shape nothing to say."""
    for name in ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"):
        if getattr(sampling, name):
            raise UserError(
                f"{name} and a required shape contradict each other: JSON repeats its quotes, commas and keys, and "
                "what may not come again cannot be written",
                f"leave {name} out; to vary the values, use --set frequency_penalty=0.3",
            )
    for name in ("stop", "stop_token_ids"):
        if getattr(sampling, name):
            raise UserError(
                f"{name} and a required shape contradict each other: the answer would be cut where it is not yet valid",
                f"leave {name} out: the answer ends as soon as its shape is complete",
            )
    if any(value <= -100 for value in sampling.logit_bias.values()):
        raise UserError(
            "a logit_bias of -100 forbids a token, and a required shape may need just that one",
            "use a milder bias, -10 for instance, or say it in the schema",
        )


def warnings_of(sampling: Sampling) -> list[str]:
    """What the settings do that they may not seem to, one sentence each."""
    open_end = (sampling.top_k, sampling.top_p, sampling.min_p, sampling.typical_p) == (0, 1, 0, 1)
    size = sampling.no_repeat_ngram_size
    found = {
        f"temperature {sampling.temperature:g} with top_k=0 and no other filter lets every token of the vocabulary "
        "come: expect nonsense (min_p=0.05 keeps what is plausible)": sampling.temperature > 1 and open_end,
        "top_k=1 leaves the likeliest token alone: the answer is that of temperature 0, whatever the seed": (
            sampling.temperature > 0 and sampling.top_k == 1
        ),
        "a repetition_penalty below 1 rewards repetition": sampling.repetition_penalty < 1,
        f"no_repeat_ngram_size={size} has no effect on an answer of at most {sampling.max_new_tokens} tokens": (
            size >= sampling.max_new_tokens
        ),
        "no_repeat_ngram_size=1 lets every token come once, spaces and commas too": size == 1,
        f"prompt_lookup_num_tokens={sampling.prompt_lookup_num_tokens} guesses further than the answer may go": (
            sampling.prompt_lookup_num_tokens >= sampling.max_new_tokens
        ),
    }
    return [sentence for sentence, holds in found.items() if holds]


def _read(key: str, value: Any) -> Any:
    """One text or id is a list of one; JSON has no numbers as keys."""
    if key in ("stop", "stop_token_ids"):
        parts = value if isinstance(value, (list, tuple)) else (value,)
        return tuple(str(part) if key == "stop" and type(part) in (int, float) else part for part in parts)
    if key == "logit_bias" and isinstance(value, Mapping):
        return {int(id) if isinstance(id, str) and id.isdecimal() else id: bias for id, bias in value.items()}
    return value


def _contradictions(sampling: Sampling, given: set[str]) -> Iterator[tuple[str, str]]:
    """What cannot hold together: a message and a hint each. `given` are the settings that somebody asked for."""
    drawn, beams = sampling.temperature > 0, sampling.num_beams > 1
    if beams:
        yield from _against_beams(sampling)
    else:
        for name in ("length_penalty", "early_stopping"):
            if name in given:
                yield f"{name} has no effect without beams", f"add --set num_beams=4, or leave {name} out"
    for name in _SAMPLED:
        if name in given and not drawn:
            yield (
                f"{name} has no effect at temperature 0: the most likely token is always taken",
                f"leave {name} out" if beams else f"add --set temperature=0.8, or leave {name} out",
            )
    if sampling.prompt_lookup_num_tokens and max(sampling.n, sampling.best_of or 1) > 1:
        yield (
            "prompt_lookup_num_tokens guesses for one answer: with n or best_of it contradicts itself",
            "leave one of the two out",
        )
    one = "at temperature 0" if not drawn else "with top_k=1" if sampling.top_k == 1 else ""
    for name, count in (("n", sampling.n), ("best_of", sampling.best_of or 1)):
        if count > 1 and one and not beams:
            yield f"{name}={count} {one} gives the same answer {count} times", "add --set temperature=0.8"
    if sampling.best_of is not None and sampling.best_of < sampling.n:
        yield (
            f"best_of={sampling.best_of} and n={sampling.n} contradict each other: the best n are taken of best_of",
            f"best_of must be at least {sampling.n}",
        )


def _against_beams(sampling: Sampling) -> Iterator[tuple[str, str]]:
    beams = f"num_beams={sampling.num_beams}"
    if sampling.temperature > 0:
        yield (
            f"{beams} and temperature={sampling.temperature:g} contradict each other: beam search takes what is most "
            "likely and draws nothing",
            "set temperature=0, or leave num_beams out",
        )
    if sampling.n > sampling.num_beams:
        yield f"n={sampling.n} and {beams} contradict each other: beams give one answer each", "add beams, or lower n"
    if sampling.best_of is not None:
        yield f"best_of and {beams} contradict each other: beam search ranks its answers itself", "leave best_of out"
    if sampling.prompt_lookup_num_tokens:
        yield (
            f"prompt_lookup_num_tokens and {beams} contradict each other: guesses can be confirmed for one answer, "
            "not for several that change places",
            "keep one of the two",
        )
    if sampling.logprobs is not None:
        yield (
            f"logprobs and {beams} contradict each other: a token of a beam was not chosen for its own probability",
            "leave one of the two out",
        )
