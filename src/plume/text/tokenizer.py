"""Tokenizers: trained on the data or read from a model directory, saved as ordinary Hugging Face ones.

`pad`, `eos`, `sep` and the role tokens are separate tokens, so that masking one never masks another.
Text that merely looks like a special token is never encoded as one, except by a template.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from plume.errors import UserError
from plume.files import write_atomic
from plume.text.long import PIECE, encode_long

TokenizerKind = Literal["bpe", "word", "char"]

SPECIAL_NAMES = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<eos>", "sep_token": "<sep>"}
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>")
_WORD = r" ?[\p{L}\p{M}\p{N}_]+| ?[^\s\p{L}\p{M}\p{N}_]|\s"
_MOST_ADDED = 20_000  # words, when a vocabulary grows
_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


class TextTokenizer:
    """A `tokenizers` backend with the names of its special tokens; implements `plume.types.Tokenizer`."""

    def __init__(self, backend: Backend, names: Mapping[str, str], config: Mapping[str, Any] | None = None) -> None:
        self._backend = backend
        self._backend.no_padding()
        self._backend.no_truncation()
        self._names = dict(names)
        self._config = dict(config or {})
        self._bytes_of = _bytes_of(backend)

    @property
    def source(self) -> str:
        """Everything that decides its ids, as tokenizer.json holds it."""
        return str(self._backend.to_str())

    # --- vocabulary ---

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included: the width of the logits it needs."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def special_tokens(self) -> dict[str, int]:
        """Text to id of every special token."""
        added = self._backend.get_added_tokens_decoder()
        return {token.content: id for id, token in added.items() if token.special}

    @property
    def special_token_names(self) -> dict[str, str]:
        """Hugging Face names (`eos_token`, …) to token texts; a template may use each as a variable."""
        return dict(self._names)

    @property
    def eos_id(self) -> int:
        return self._id("eos_token")

    @property
    def pad_id(self) -> int:
        return self._id("pad_token")

    def _id(self, name: str) -> int:
        id = self._backend.token_to_id(self._names[name]) if name in self._names else None
        if id is None:
            raise UserError(
                f"the tokenizer has no {name}",
                f'add one and save it: tokenizer.add_special_tokens({{"{name}": "…"}}); tokenizer.save_pretrained(DIR)',
            )
        return int(id)

    # --- text and ids ---

    def encode(self, text: str, *, add_special_tokens: bool = False, specials: bool = False) -> list[int]:
        """Ids of a text. `add_special_tokens` adds what the tokenizer adds by default (BOS, say);
        `specials` reads special tokens written in the text as such (templates do)."""
        self._backend.encode_special_tokens = not specials
        if len(text) > PIECE and not add_special_tokens:
            return encode_long(text, self._ids)
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out; bytes that form no character become U+FFFD."""
        text = b"".join(self.token_bytes(id) for id in ids).decode("utf-8", errors="replace")
        return text[1:] if self.prepends_space and text.startswith(" ") else text

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for in running text; none for a special token."""
        return self._table[id] if 0 <= id < len(self._table) else b""

    @functools.cached_property
    def _table(self) -> tuple[bytes, ...]:
        specials = set(self.special_tokens.values())
        table = [b""] * self.vocab_size
        for text, id in self._backend.get_vocab(with_added_tokens=True).items():
            if id < len(table) and id not in specials:
                table[id] = self._bytes_of(text)
        return tuple(table)

    @functools.cached_property
    def prepends_space(self) -> bool:
        """Does encoding put a space before the text, which decoding takes off again (SentencePiece does)?"""
        ids = self.encode("a")
        return b"".join(self.token_bytes(id) for id in ids) == b" a"

    # --- changes and files ---

    def with_special_tokens(self, tokens: Iterable[str], names: Mapping[str, str]) -> TextTokenizer:
        """A copy that also has these special tokens; `names` binds some of them (`{"pad_token": "<pad>"}`)."""
        backend = Backend.from_str(self._backend.to_str())
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
        return TextTokenizer(backend, {**self._names, **names}, self._config)

    def with_words(self, texts: Iterable[str]) -> TextTokenizer:
        """A copy that also knows the words or characters of these texts, the most frequent first; ids that there
        were stay. Only a tokenizer of whole words or characters lacks any: others come back as they are."""
        value = json.loads(self._backend.to_str())
        if value["model"]["type"] != "WordLevel":
            return self
        known = value["model"]["vocab"]
        new: Counter[str] = Counter()
        for text in texts:
            for line in text.splitlines(keepends=True):
                plain = self._backend.normalizer.normalize_str(line) if self._backend.normalizer else line
                pieces = self._backend.pre_tokenizer.pre_tokenize_str(plain)
                new.update(piece for piece, _ in pieces if piece not in known)
        if not new:
            return self
        ranked = sorted(new, key=lambda piece: (-new[piece], piece))[:_MOST_ADDED]
        known |= {piece: id for id, piece in enumerate(ranked, self.vocab_size)}
        return TextTokenizer(Backend.from_str(json.dumps(value)), self._names, self._config)

    def save(self, directory: Path, *, chat_template: str | None = None) -> None:
        """Write tokenizer.json, tokenizer_config.json and, if given, chat_template.jinja."""
        config = {
            **self._config,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self._names,
        }
        config.pop("chat_template", None)
        write_atomic(directory / "tokenizer.json", self._backend.to_str(pretty=True))
        write_atomic(directory / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        if chat_template is not None:
            write_atomic(directory / "chat_template.jinja", chat_template)


def train_tokenizer(kind: TokenizerKind, texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Learn a vocabulary of at most `vocab_size` ids from texts.

    `bpe`: byte-level byte-pair encoding (Sennrich et al. 2016, GPT-2's bytes), any text; `word`: words with
    the space before them, `char`: characters, both with `<unk>` for what was never seen. Deterministic.
    """
    specials = [*SPECIAL_NAMES.values(), *ROLE_TOKENS]
    trainer: Any
    if kind == "bpe":
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=specials,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    else:
        backend = Backend(models.WordLevel(unk_token=SPECIAL_NAMES["unk_token"]))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD if kind == "word" else r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=specials, show_progress=False)
    backend.normalizer = normalizers.NFC()
    backend.train_from_iterator(texts, trainer)
    return TextTokenizer(backend, SPECIAL_NAMES)


def load_tokenizer(directory: Path) -> TextTokenizer:
    """Read the tokenizer of a Hugging Face model directory. Raises UserError when there is none."""
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"{directory} has no tokenizer (tokenizer.json is missing)",
            "copy the tokenizer of the model's base there; an older layout is converted by "
            "transformers.AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        )
    try:
        backend = Backend.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for every malformed file
        raise UserError(f"{file} is not a readable tokenizer: {error}", "restore it from the model's source") from None
    config = read_json(directory / "tokenizer_config.json")
    stored = {**read_json(directory / "special_tokens_map.json"), **config}
    names = {name: _content(stored[name]) for name in _NAMES if stored.get(name)}
    kept = {key: value for key, value in config.items() if key not in (*_NAMES, "added_tokens_decoder")}
    return TextTokenizer(backend, names, kept)


def read_chat_template(directory: Path) -> str | None:
    """The chat template a model directory brings, if any."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not UTF-8: {error.reason}", "restore it from the model's source") from None
    template = read_json(directory / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several named ones
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template if isinstance(template, str) else None


def read_json(file: Path) -> dict[str, Any]:
    """The object that a file of a model directory holds; empty when there is none. Raises UserError."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON: {error}", "restore it from the model's source") from None
    return value if isinstance(value, dict) else {}


def _content(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _bytes_of(backend: Backend) -> Any:
    """How this tokenizer writes bytes as token texts, read off its decoder."""
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    parts = decoder.get("decoders", [decoder]) if decoder else []
    kinds = {part.get("type") for part in parts}
    if "ByteLevel" in kinds:
        unicode_to_byte = {character: byte for byte, character in _byte_alphabet().items()}
        return lambda text: (
            bytes(unicode_to_byte[c] for c in text) if set(text) <= unicode_to_byte.keys() else text.encode()
        )
    if kinds & {"Metaspace", "ByteFallback", "Replace"}:
        return _sentencepiece_bytes
    if kinds <= {"Fuse"}:
        return lambda text: text.encode("utf-8")
    named = ", ".join(sorted(str(kind) for kind in kinds))
    raise UserError(
        f"the tokenizer's decoder ({named}) is not one of a causal language model",
        "use a model whose tokenizer is byte-level BPE, SentencePiece, word- or character-level",
    )


def _sentencepiece_bytes(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode("utf-8")


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in table]
    return {**table, **{byte: chr(256 + index) for index, byte in enumerate(others)}}
