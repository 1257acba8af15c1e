"""A model with the tokenizer and template that belong to it: what a model directory holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from plume.errors import UserError
from plume.files import write_atomic
from plume.models.adapter import Adapter, base_of, is_adapter, load_adapter, save_adapter
from plume.models.catalog import find_directory, load_model, load_model_file
from plume.text.template import RAW, TEMPLATES, ChatTemplate, personified
from plume.text.tokenizer import ROLE_TOKENS, SPECIAL_NAMES, TextTokenizer, load_tokenizer, read_chat_template
from plume.types import LanguageModel, Sampling

_DEFAULT_MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Bundle:
    """`stop_ids` end an answer; `max_new_tokens` is the longest answer this model was made for.

    `own_template` is False when there is no chat template and the raw one stands in: a model of plain text has
    learnt no turns, so its directory gets none, and fine-tuning on conversations may choose one. `adapter` is what was
    put into `model`, and then all that is saved of it. `sampling` is how the directory wants the model to be asked:
    greedy, unless it says otherwise.
    """

    model: LanguageModel
    tokenizer: TextTokenizer
    template: ChatTemplate
    stop_ids: frozenset[int]
    max_new_tokens: int = _DEFAULT_MAX_NEW_TOKENS
    own_template: bool = True
    adapter: Adapter | None = None
    sampling: Sampling = field(default_factory=Sampling)

    def whole(self) -> Bundle:
        """The same without an adapter, once that is merged into the model."""
        return replace(self, adapter=None)


def bundle(
    model: LanguageModel, tokenizer: TextTokenizer, template: str, max_new_tokens: int, *, own_template: bool = True
) -> Bundle:
    """Bind a model, a tokenizer and a template's name or source."""
    chat = ChatTemplate(TEMPLATES.get(template, template), tokenizer)
    return Bundle(model, tokenizer, chat, _stop_ids(tokenizer, chat, ()), max_new_tokens, own_template)


def load(name: str | Path, quantization: str | None = None) -> Bundle:
    """Open MODEL: a run directory, a directory of a model or an adapter, or a hub id. Raises UserError.

    `quantization` (int8 or int4) opens the file that `plume export` wrote, in less memory.

    >>> plume.load("runs/demo")  # doctest: +SKIP
    """
    directory = find_directory(str(name))
    if is_adapter(directory):
        if quantization:
            raise UserError(
                f"{directory} is an adapter, which has no quantised weights of its own",
                f"merge it first, and export that: plume merge {directory} --output-dir DIR",
            )
        return _load_adapted(directory)
    return _opened(directory, load_tokenizer(directory), lambda: load_model(directory, quantization))


def load_file(directory: Path, file: Path) -> Bundle:
    """The bundle of a directory with the weights of a quantised file, wherever that lies."""
    return _opened(directory, load_tokenizer(directory), lambda: load_model_file(directory, file))


def _load_adapted(directory: Path) -> Bundle:
    """A base with the adapter of a directory; what that directory does not bring is the base's."""
    base = load(base_of(directory))
    if not (directory / "tokenizer.json").is_file():
        template = personified(base.template, base.tokenizer, directory)
        return replace(base, adapter=load_adapter(directory, base.model), template=template)
    tokenizer = load_tokenizer(directory)
    if isinstance(base.model, _Growable):
        base.model.resize(tokenizer.vocab_size)
    adapter = load_adapter(directory, base.model)
    return replace(_opened(directory, tokenizer, lambda: base.model), adapter=adapter)


def _opened(directory: Path, tokenizer: TextTokenizer, open_model: Callable[[], LanguageModel]) -> Bundle:
    source = read_chat_template(directory)
    template = personified(ChatTemplate(source or RAW, tokenizer), tokenizer, directory)
    model = open_model()
    if tokenizer.vocab_size > model.vocab_size:
        raise UserError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} ids, the model only {model.vocab_size}",
            "restore tokenizer and weights from one source",
        )
    model.train(False)
    settings = _generation_config(directory)
    ends = settings.get("eos_token_id")
    extra = ends if isinstance(ends, list) else [ends] if isinstance(ends, int) else []
    return Bundle(
        model,
        tokenizer,
        template,
        _stop_ids(tokenizer, template, extra),
        int(settings.get("max_new_tokens") or _DEFAULT_MAX_NEW_TOKENS),
        own_template=source is not None,
        sampling=_sampling(settings),
    )


def save(bundle: Bundle, directory: Path, card: str) -> None:
    """Fill a directory with everything that asking needs; transformers and others open it."""
    if bundle.adapter:
        save_adapter(bundle.adapter, directory)
    else:
        bundle.model.save(directory)
    bundle.tokenizer.save(directory, chat_template=bundle.template.source if bundle.own_template else None)
    settings = {
        "eos_token_id": sorted(bundle.stop_ids),
        "pad_token_id": bundle.tokenizer.pad_id,
        "max_new_tokens": bundle.max_new_tokens,
        "do_sample": False,
    }
    write_atomic(directory / "generation_config.json", json.dumps(settings, indent=2) + "\n")
    write_atomic(directory / "README.md", card)


@runtime_checkable
class _Answering(Protocol):
    """A model that has a faster form for answering."""

    def for_answering(self, *, batched: bool = False) -> LanguageModel: ...


def for_answering(opened: Bundle, *, batched: bool = False) -> Bundle:
    """The bundle to ask from now on: faster, but its model can be neither trained nor saved any more. One with an
    adapter stays as it is. With `batched` nothing is done that would serve a row alone and no other: then what a row
    comes to is the same in any company."""
    if opened.adapter or not isinstance(opened.model, _Answering):
        return opened
    return replace(opened, model=opened.model.for_answering(batched=batched))


@runtime_checkable
class _Growable(Protocol):
    """A model whose vocabulary can be widened."""

    def resize(self, vocab_size: int) -> None: ...


@runtime_checkable
class _Asked(Protocol):
    """A model whose kind has a template of its own for questions."""

    default_template: str


def for_training(base: Bundle, *, chat: bool, texts: Iterable[str] = ()) -> Bundle:
    """The bundle to fine-tune: a pad token of its own, and where there is no chat template to keep, the
    default one with its tokens (`chat`), or the raw one (plain text).

    A GRU's default is `sep`; one that was trained on plain text has no template worth keeping for questions. Where
    whole words are tokens, those of `texts` that the base lacks join its vocabulary, if the model can grow.
    """
    tokens: list[str] = []
    names: dict[str, str] = {}
    given = base.tokenizer.special_token_names
    if "eos_token" not in given:
        names["eos_token"] = "<eos>"
    shared = {text for name, text in given.items() if name != "pad_token"}
    if "pad_token" not in given or given["pad_token"] in shared:
        names["pad_token"] = "<pad>"
    tokens += names.values()
    default = base.model.default_template if isinstance(base.model, _Asked) else "chat"
    keeps = base.own_template and not (chat and default == "sep" and base.template.source == RAW)
    if chat and not keeps and default == "sep" and "sep_token" not in given:
        names["sep_token"] = SPECIAL_NAMES["sep_token"]
        tokens.append(names["sep_token"])
    elif chat and not keeps and default == "chat":
        tokens += ROLE_TOKENS
    tokenizer = base.tokenizer.with_special_tokens(tokens, names) if tokens else base.tokenizer
    if base.adapter and tokenizer.vocab_size > base.tokenizer.vocab_size:
        raise UserError(
            f"training on needs the tokens {', '.join(tokens)}, and an adapter cannot be given more of them",
            "merge it first: plume merge ADAPTER --output-dir DIR",
        )
    if isinstance(base.model, _Growable) and not base.adapter:
        tokenizer = tokenizer.with_words(texts)
        base.model.resize(tokenizer.vocab_size)
    template = base.template if keeps else ChatTemplate(TEMPLATES[default] if chat else RAW, tokenizer)
    extra = base.stop_ids if keeps else ()
    return replace(
        base,
        tokenizer=tokenizer,
        template=template,
        stop_ids=_stop_ids(tokenizer, template, extra),
        own_template=base.own_template or chat,
    )


def _stop_ids(tokenizer: TextTokenizer, template: ChatTemplate, extra: Iterable[int]) -> frozenset[int]:
    specials = tokenizer.special_tokens
    named = tokenizer.special_token_names.get("eos_token")
    texts = [*template.stop, *([named] if named in specials else [])]
    return frozenset([*(specials[text] for text in texts if text in specials), *extra])


def _sampling(settings: Mapping[str, Any]) -> Sampling:
    """What generation_config.json says in transformers' names."""
    if not settings.get("do_sample"):
        return Sampling()
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
    return Sampling(
        **{"temperature": 1.0, **{name: settings[name] for name in names if settings.get(name) is not None}}
    )


def _generation_config(directory: Path) -> dict[str, Any]:
    file = directory / "generation_config.json"
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} is not a JSON object: {error}", "restore it from the model's source") from None
