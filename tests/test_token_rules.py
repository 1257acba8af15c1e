"""D3: what the tokenizer and the template make of the rows, and the mask view."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tokenizers import Tokenizer as Backend
from tokenizers import pre_tokenizers

from plume.checks import directory, tokens
from plume.checks.catalogue import CATALOGUE
from plume.checks.fertility import fertility, finely_cut, own_fertility
from plume.cli.mask import show_row
from plume.text.encoded import EncodedRows
from plume.text.template import CHAT, RAW, ChatTemplate, encode_example
from plume.text.tokenizer import TextTokenizer, train_tokenizer
from plume.types import Encoded, Example, Finding, Message, Source, Tokenizer

QUESTIONS = [f"Where is the {thing} of house {n}?" for n, thing in enumerate(("lamp", "boat", "bell", "bread") * 3)]


def row(prompt: str, completion: str, line: int = 1) -> Example:
    return Example((Message("user", prompt), Message("assistant", completion)), Source("qa.jsonl", line))


ROWS = [row(asked, f"In the tower number {n}.", n + 1) for n, asked in enumerate(QUESTIONS)]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer("bpe", [m.content for example in ROWS for m in example.messages], 512)


def look(
    examples: Sequence[Example], tokenizer: TextTokenizer, template: str = CHAT, **changes: Any
) -> dict[str, list[Finding]]:
    settings = {"max_length": 256, "max_new_tokens": 64, "batch_size": 4, "sampling": {}, **changes}
    found: dict[str, list[Finding]] = {}
    for finding in tokens.token_findings(examples, tokenizer, ChatTemplate(template, tokenizer), **settings):
        assert finding.severity in CATALOGUE[finding.code].severity
        found.setdefault(finding.code, []).append(finding)
    return found


def encoded(examples: Sequence[Example], tokenizer: TextTokenizer) -> list[Encoded]:
    return [encode_example(example, ChatTemplate(CHAT, tokenizer), tokenizer) for example in examples]


@pytest.mark.parametrize("template", [CHAT, RAW])
def test_sound_rows_give_nothing(tokenizer: TextTokenizer, template: str) -> None:
    assert look(ROWS, tokenizer, template) == {}


def test_plain_text_gives_nothing(tokenizer: TextTokenizer) -> None:
    text = Example((Message("assistant", "The lamp burns in the tower. " * 200),), Source("book.txt", 1))
    assert look([text], tokenizer, RAW, max_length=32) == {}


def test_a_row_beyond_the_context_is_named(tokenizer: TextTokenizer) -> None:
    found = look([*ROWS, row("Say it all.", "In the tower number 3. " * 30, 13)], tokenizer, max_length=64)
    assert [finding.source.line for finding in found["D301"]] == [13]


def test_a_row_without_trained_token(tokenizer: TextTokenizer) -> None:
    whole = encoded(ROWS, tokenizer)
    first_only = Encoded(whole[1].ids, (True, *[False] * (len(whole[1].ids) - 1)))
    found = list(tokens.untrained(ROWS, EncodedRows.of([whole[0], first_only, *whole[2:]])))
    assert [finding.source.line for finding in found] == [2]
    assert "1 of 12 rows" in found[0].message


def test_an_end_token_masked_or_absent(tokenizer: TextTokenizer) -> None:
    whole = encoded(ROWS, tokenizer)
    masked = Encoded(whole[0].ids, (*whole[0].trained[:-1], False))
    absent = Encoded(whole[1].ids[:-1], whole[1].trained[:-1])
    found = list(tokens.endless(ROWS, EncodedRows.of([masked, absent, *whole[2:]]), {tokenizer.eos_id}))
    assert [(finding.source.line, "not in the loss" in finding.message) for finding in found] == [(1, True), (2, False)]
    assert list(tokens.endless(ROWS, EncodedRows.of(whole), {tokenizer.eos_id})) == []


class Unseparated:
    """A foreign template without any mark between turns."""

    source, persona, stop, call_syntax = "", None, ("<eos>",), None

    def parse(self, text: str) -> Message:
        return Message("assistant", text)

    def encode(
        self, messages: Sequence[Message], tokenizer: Tokenizer, tools: Sequence[Any] = (), *, reply: bool = False
    ) -> Encoded:
        assert not tools
        pieces = [(tokenizer.encode(message.content), message.role == "assistant") for message in messages]
        if not reply:
            pieces.append((tokenizer.encode("<eos>", specials=True), True))
        ids = tuple(id for piece, _ in pieces for id in piece)
        return Encoded(ids, tuple(learnt for piece, learnt in pieces for _ in piece))


def test_a_seam_that_changes_the_question(tokenizer: TextTokenizer) -> None:
    """An earlier answer's end and the next question's start merge into one word."""
    messages = (Message("user", "Where?"), Message("assistant", " to"), Message("user", "wer"), ROWS[0].messages[1])
    findings = list(tokens.seams([Example(messages, Source("qa.jsonl", 1))], tokenizer, Unseparated()))
    assert [(finding.code, finding.severity) for finding in findings] == [("D304", "error")]
    apart = (Message("user", "Where?"), Message("assistant", " to"), Message("user", " tower"), ROWS[0].messages[1])
    assert list(tokens.seams([Example(apart, Source("qa.jsonl", 1))], tokenizer, Unseparated())) == []


def test_a_seam_that_only_other_tools_stumble_over(tokenizer: TextTokenizer) -> None:
    findings = list(tokens.seams([row("In the to", "wer")], tokenizer, Unseparated()))
    assert [(finding.code, finding.severity) for finding in findings] == [("D304", "warning")]


def test_unknown_words_and_fine_cuts(tokenizer: TextTokenizer) -> None:
    words = train_tokenizer("word", ["Where is the lamp?", "In the tower number"], 64)
    assert "D305" in look([row("Où est la cloche ?", "In the tower")], words)
    english = train_tokenizer(
        "bpe", ["The old keeper of the lighthouse wrote every evening what the wind had done"] * 9, 400
    )
    greek = row("Πού είναι ο φάρος του νησιού;", "Στο λιμάνι, δίπλα στην παλιά εκκλησία.")
    finding = next(finely_cut([greek], english))
    assert (finding.code, finding.severity) == ("D305", "warning")
    assert "prompts" in finding.message
    own = own_fertility(english)
    assert own is not None
    assert own.name == "English"
    assert all(part.per_word > 2 * own.per_word for part in fertility([greek], english))
    assert list(finely_cut(ROWS, tokenizer)) == []


def test_characters_are_no_fine_cut() -> None:
    letters = train_tokenizer("char", [m.content for example in ROWS for m in example.messages], 128)
    assert list(finely_cut(ROWS, letters)) == []


def test_a_special_token_in_the_text_is_quoted(tokenizer: TextTokenizer) -> None:
    found = look([*ROWS, row("Hello<|assistant|>yes", "In the tower.", 13)], tokenizer)["D306"]
    assert [(finding.source.line, finding.quote) for finding in found] == [(13, "<|assistant|>")]


def test_a_file_rendered_before_is_said_once(tokenizer: TextTokenizer) -> None:
    rendered = [row(f"<|user|>{e.messages[0].content}", e.messages[1].content, e.source.line or 0) for e in ROWS]
    found = look(rendered, tokenizer)["D306"]
    assert len(found) == 1
    assert "12 of 12 rows" in found[0].message


def test_answers_longer_than_generation_allows(tokenizer: TextTokenizer) -> None:
    found = look(ROWS, tokenizer, max_new_tokens=2)["D307"][0]
    longest = int(found.hint.split("max_new_tokens=")[1].split()[0])
    assert "D307" not in look(ROWS, tokenizer, max_new_tokens=longest)
    assert "D307" in look(ROWS, tokenizer, max_new_tokens=longest - 1)
    assert "max_length=5" in look(ROWS, tokenizer, sampling={"max_length": 5})["D307"][0].message


def test_repeated_runs_are_found_exactly_where_generation_bars_them() -> None:
    """Against the rule itself: a token is barred when the run it would end stands anywhere before it."""
    letters = train_tokenizer("char", ["abcdefgh "], 64)
    cases = {("abc", "abd"): True, ("abc", "bad"): False, ("xy", "abcab"): True, ("ab", "ba"): False}
    for (prompt, completion), barred in cases.items():
        example = Example((Message("user", prompt), Message("assistant", completion)), Source("qa.jsonl", 1))
        rows = encoded([example], letters)
        assert bool(list(tokens.unreachable([example], rows, letters, 2))) is barred, (prompt, completion)
        assert list(tokens.unreachable([example], rows, letters, 0)) == []


def test_a_template_unfit_for_training(tokenizer: TextTokenizer) -> None:
    endless = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    found = look(ROWS, tokenizer, endless)
    assert list(found) == ["D309"]
    assert "12 of 12 rows" in found["D309"][0].message


def test_a_doubled_start(tokenizer: TextTokenizer) -> None:
    starting = tokenizer.with_special_tokens(["<s>"], {"bos_token": "<s>"})
    assert "D309" in look(ROWS, starting, "{{ bos_token }}" + CHAT)
    assert "D309" not in look(ROWS, starting, CHAT)


def test_an_end_that_no_row_teaches(tokenizer: TextTokenizer) -> None:
    grown = tokenizer.with_special_tokens(["<END>"], {"eos_token": "<END>"})
    old = CHAT.replace("{{ eos_token }}", "<eos>")
    found = look(ROWS, grown, old)["D310"][0]
    assert "<END>" in found.message
    assert "<eos>" in found.message
    assert "D310" not in look(ROWS, grown, old, sampling={"eos_token_id": [tokenizer.eos_id, grown.eos_id]})


def test_padding_is_counted_as_training_pads() -> None:
    assert tokens.padding_waste([9, 9, 9, 9], 2) == 0
    assert tokens.padding_waste([1, 1, 1, 97], 4) == pytest.approx(0.742, abs=1e-3)
    assert tokens.padding_waste([100, 100], 2, max_length=30) == pytest.approx(
        1 - 200 / (4 * 30 + 2 * 30 + 2 * 10 + 20), abs=0.2
    )


def test_one_huge_row_among_short_ones(tokenizer: TextTokenizer) -> None:
    long = row("All?", "In the tower number 4. " * 12, 13)
    found = look([*ROWS[:7], long], tokenizer, batch_size=8, max_new_tokens=200)["D311"][0]
    assert found.source.line == 13
    assert "D311" not in look([*ROWS[:7], long], tokenizer, batch_size=1, max_new_tokens=200)


def saved(path: Path, tokenizer: TextTokenizer, template: str | None = CHAT) -> Path:
    path.mkdir()
    tokenizer.save(path, chat_template=template)
    return path


def test_a_directory_is_opened_without_its_model(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    path = saved(tmp_path / "m", tokenizer)
    (path / "config.json").write_text('{"max_position_embeddings": 99}', encoding="utf-8")
    text = directory.open_text_side(path)
    assert (text.context_length, text.own_template, text.template.source) == (99, True, CHAT)
    assert list(directory.directory_findings(text, ROWS)) == []
    assert directory.open_text_side(saved(tmp_path / "n", tokenizer, None)).own_template is False


def test_a_template_without_marks_is_only_remarked(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    plain = CHAT.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    text = directory.open_text_side(saved(tmp_path / "m", tokenizer, plain))
    assert [(f.code, f.severity) for f in directory.directory_findings(text, ROWS)] == [("D309", "info")]


def test_added_words_without_effect(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    backend = Backend.from_str(json.dumps(json.loads(tokenizer._backend.to_str())))
    known = next(text for text in backend.get_vocab() if text.isalpha() and text.isascii() and len(text) > 1)
    backend.add_tokens(["zanzibar", known, "<think>"])
    text = directory.open_text_side(saved(tmp_path / "m", TextTokenizer(backend, tokenizer.special_token_names)))
    messages = [finding.message for finding in directory.directory_findings(text, ROWS) if finding.code == "D310"]
    assert any("zanzibar" in message and "no row" in message for message in messages)
    assert any(repr(known) in message and "already" in message for message in messages)
    assert not any("think" in message for message in messages)


def test_an_edited_vocabulary() -> None:
    alphabet = {text: id for id, text in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab = {**alphabet, "ab": 256, "lighthouse": 257}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]}
    found = list(directory.unmerged(model, set(), Source("tokenizer.json")))
    assert len(found) == 1
    assert "'lighthouse'" in found[0].message
    assert "'ab'" not in found[0].message
    assert list(directory.unmerged({**model, "ignore_merges": True}, set(), Source("t"))) == []


def test_the_mask_view_shows_what_is_trained(tokenizer: TextTokenizer) -> None:
    console = Console(file=io.StringIO(), width=200, no_color=True)
    show_row(ROWS[0], tokenizer, ChatTemplate(CHAT, tokenizer), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    given, _, learnt = shown.partition("⟦")
    assert "lamp" in given.replace("·", "")
    assert learnt.partition("⟧")[0].replace("·", "") == "In the tower number 0.<eos>"
    assert "the answer ends on <eos>" in shown
    whole = encoded(ROWS[:1], tokenizer)[0]
    assert f"{len(whole.ids)} tokens: {sum(whole.trained)} trained" in shown


def test_the_mask_view_gives_ids(tokenizer: TextTokenizer) -> None:
    console = Console(file=io.StringIO(), width=200, no_color=True)
    show_row(ROWS[0], tokenizer, ChatTemplate(CHAT, tokenizer), console, ids=True)
    assert f"<eos>({tokenizer.eos_id})" in console.file.getvalue()  # type: ignore[attr-defined]
