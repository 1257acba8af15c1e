"""What a model directory says of itself before a weight is read: tokenizer, template, settings (D309, D310)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plume.text.template import RAW, ChatTemplate, personified
from plume.text.tokenizer import TextTokenizer, load_tokenizer, read_chat_template, read_json
from plume.types import Example, Finding, Source

_SHOWN = 5


@dataclass(frozen=True)
class TextSide:
    """A model directory without its model. `settings` is generation_config.json, `vocabulary` tokenizer.json.

    `own_template` is False when the directory brought no chat template and the raw one stands in.
    """

    directory: Path
    tokenizer: TextTokenizer
    template: ChatTemplate
    context_length: int | None
    settings: Mapping[str, Any]
    vocabulary: Mapping[str, Any]
    own_template: bool


def open_text_side(directory: Path) -> TextSide:
    """Tokenizer, template and settings of a model directory, or of a run's. Raises UserError."""
    if (directory / "recipe.yaml").is_file():
        directory = directory / "model"
    tokenizer = load_tokenizer(directory)
    source = read_chat_template(directory)
    return TextSide(
        directory,
        tokenizer,
        personified(ChatTemplate(source or RAW, tokenizer), tokenizer, directory),
        read_json(directory / "config.json").get("max_position_embeddings"),
        read_json(directory / "generation_config.json"),
        read_json(directory / "tokenizer.json"),
        own_template=source is not None,
    )


def directory_findings(text: TextSide, examples: Iterable[Example]) -> Iterator[Finding]:
    """D309 and D310: what is odd about the directory itself, and about its added words for these rows."""
    source = Source(str(text.directory / "tokenizer.json"))
    yield from unmarked(text)
    added = [token for token in text.vocabulary.get("added_tokens", ()) if _is_word(token)]
    model = text.vocabulary.get("model", {})
    yield from existing(added, model.get("vocab", {}), source)
    yield from idle(added, examples, source)
    if model.get("type") == "BPE":
        yield from unmerged(model, {token["content"] for token in text.vocabulary.get("added_tokens", ())}, source)


def unmarked(text: TextSide) -> Iterator[Finding]:
    """D309: a template that other tools cannot train on; Plume finds the replies by their text."""
    if text.own_template and "generation" not in text.template.source.replace("add_generation_prompt", ""):
        yield Finding(
            "D309",
            "info",
            Source(str(text.directory / "chat_template.jinja")),
            "the chat template does not mark what the assistant says; Plume finds it by its text",
            "tools that train on marks alone need {% generation %} … {% endgeneration %} around it",
        )


def idle(added: Sequence[Mapping[str, Any]], examples: Iterable[Example], source: Source) -> Iterator[Finding]:
    """D310: words added to the vocabulary that no row contains, so that their new weights stay noise."""
    waiting = {str(token["content"]) for token in added}
    for example in examples:
        if not waiting:
            return
        waiting -= {word for word in waiting if any(word in message.content for message in example.messages)}
    if waiting:
        yield Finding(
            "D310",
            "warning",
            source,
            f"{_list(waiting)} {_were(waiting)} added to the vocabulary and stand{'s' * (len(waiting) == 1)} in no row",
            "leave them out: a token that is never seen keeps the random weights it began with",
        )


def existing(added: Sequence[Mapping[str, Any]], vocab: Any, source: Source) -> Iterator[Finding]:
    """D310: words "added" although the vocabulary had them."""
    if not isinstance(vocab, dict):
        return
    known = {str(token["content"]) for token in added if {token["content"], f"Ġ{token['content']}"} & vocab.keys()}
    known |= {str(token["content"]) for token in added if f"▁{token['content']}" in vocab}
    if known:
        yield Finding(
            "D310",
            "warning",
            source,
            f"added to a vocabulary that already had {'it' if len(known) == 1 else 'them'}: {_list(known)}",
            "leave them out: an added word is cut out of the text before the trained merges see it",
        )


def unmerged(model: Mapping[str, Any], added: set[str], source: Source) -> Iterator[Finding]:
    """D310: entries of a BPE vocabulary that no merge makes, as after an edit of vocab.json by hand."""
    if model.get("ignore_merges") or model.get("end_of_word_suffix") or model.get("continuing_subword_prefix"):
        return
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model.get("merges", ()))
    made = {"".join(pair) for pair in pairs}
    orphans = [
        text
        for text in model.get("vocab", ())
        if len(text) > 1 and text not in made and text not in added and not _is_byte(text)
    ]
    if orphans:
        yield Finding(
            "D310",
            "warning",
            source,
            f"no merge makes {_list(orphans)}: {len(orphans)} entries of the vocabulary can never be used",
            "add words with tokenizer.add_tokens([...]), not by editing the vocabulary's file",
        )


def _is_word(token: Mapping[str, Any]) -> bool:
    """Added as a word of the language, not as a mark such as <think> that a base brings for other uses."""
    return not token.get("special") and str(token.get("content", "")).strip().isalnum()


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _list(words: Iterable[str]) -> str:
    chosen = sorted(words)
    more = f" and {len(chosen) - _SHOWN} more" if len(chosen) > _SHOWN else ""
    return ", ".join(repr(word) for word in chosen[:_SHOWN]) + more


def _were(words: Iterable[str]) -> str:
    return "was" if len(list(words)) == 1 else "were"
