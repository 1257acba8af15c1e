"""Data in files rather than in memory: sequences, plans, long texts, and the cache of what was found."""

import json
import os
import random
import stat
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY
from plume import cache
from plume.data.keys import Questions, keys_of, question_key
from plume.data.spool import Chosen, Examples, Joined
from plume.recipe import parse_recipe
from plume.text.encoded import EncodedRows, load_rows, longest_reply
from plume.text.long import encode_long
from plume.text.tokenizer import TokenizerKind, train_tokenizer
from plume.training.epochs import epoch_plan
from plume.training.prepare import prepare
from plume.types import Encoded, Example, Message, Source


def rows(count: int) -> list[Example]:
    return [
        Example(
            (Message("user", f"question {number} \ud800?"), Message("assistant", f"answer {number % 3}")),
            Source(f"part-{number // 7}.jsonl", number + 1),
            cut=number % 5 == 0,
        )
        for number in range(count)
    ]


def encoded(count: int) -> list[Encoded]:
    chance = random.Random(count)
    sizes = [chance.randint(1, 30) for _ in range(count)]
    return [
        Encoded(tuple(range(number, number + size)), tuple(position > size // 2 for position in range(size)))
        for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("held", [0, 3000, 2**20])
def test_examples_are_the_same_in_memory_and_in_a_file(held: int) -> None:
    written = rows(40)
    kept = Examples(written[:25], held=held)
    assert kept[3] == written[3]
    kept.extend(written[25:])
    assert list(kept) == written
    assert [kept[place] for place in (0, 17, -1)] == [written[0], written[17], written[-1]]
    assert list(kept[5:30:3]) == written[5:30:3]
    assert list(reversed(kept)) == written[::-1]
    assert list(Chosen(kept, [1, 2, 3, *range(10, 40)])) == [*written[1:4], *written[10:]]
    assert list(Chosen(kept, [30, 2])) == [written[30], written[2]]
    assert list(Joined(kept[:3], kept[38:])) == [*written[:3], *written[38:]]
    with pytest.raises(IndexError):
        kept[40]


@pytest.mark.parametrize("vocab_size", [300, 70_000])
def test_encoded_rows_come_back_as_they_were(vocab_size: int, tmp_path: Path) -> None:
    written = encoded(60)
    kept = EncodedRows.of(written, vocab_size=vocab_size)
    assert list(kept) == written
    assert list(kept[10:20]) == written[10:20]
    assert kept.taught.tolist() == [sum(row.trained[1:]) for row in written]
    assert kept.stretch(5, 2, 4) == Encoded(written[5].ids[2:4], written[5].trained[2:4])
    longest = max(sum(row.trained) for row in written)
    assert longest_reply(kept) == longest
    file = tmp_path / "rows"
    file.write_bytes(b"".join(kept.pieces()))
    again = load_rows(file, 0)
    assert again is not None
    assert list(again) == written
    file.write_bytes(file.read_bytes()[2:])
    assert load_rows(file, 0) is None


def test_an_epoch_reads_every_target_once_and_depends_on_seed_and_epoch_alone() -> None:
    kept = EncodedRows.of(encoded(200))
    plan = epoch_plan(kept, batch_size=8, max_length=10, seed=1, epoch=2)
    targets = sorted((piece.row, at) for batch in plan for piece in batch for at in range(piece.start + 1, piece.end))
    assert targets == [(row, at) for row, size in enumerate(kept.lengths.tolist()) for at in range(1, size)]
    assert all(1 < piece.end - piece.start <= 11 for batch in plan for piece in batch)
    sizes = [len(batch) * max(piece.end - piece.start - 1 for piece in batch) for batch in plan]
    assert plan.sizes.tolist() == sizes
    assert plan.inputs.sum() == len(targets)
    same, other = (epoch_plan(kept, batch_size=8, max_length=10, seed=1, epoch=epoch) for epoch in (2, 3))
    assert list(same) == list(plan)
    assert list(other) != list(plan)


def test_a_million_rows_are_planned_in_arrays() -> None:
    lengths = np.full(10**6, 20)
    kept = EncodedRows.of([])
    kept.lengths = lengths
    plan = epoch_plan(kept, batch_size=32, max_length=64, seed=0, epoch=0)
    assert len(plan) == 31_250
    held = sum(column.nbytes for column in (plan.row, plan.start, plan.end, plan.batches))
    assert held < 13 * 10**6


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_a_long_text_gets_the_ids_of_encoding_it_whole(kind: TokenizerKind) -> None:
    chance = random.Random(3)
    pieces = (
        "lamp",
        "Ile d'Ouessant",
        "\n",
        "\n\n",
        "\n \n",
        "  ",
        " é",
        "e\u0301",
        "don't",
        "1906",
        "...",
        "\t",
        "\n- ",
    )
    text = "".join(chance.choice(pieces) + chance.choice(("", " ", "\n")) for _ in range(4000))
    tokenizer = train_tokenizer(kind, [text], 400)
    calls: list[int] = []

    def encode(part: str) -> list[int]:
        calls.append(len(part))
        return tokenizer.encode(part)

    assert encode_long(text, encode, piece=500) == tokenizer.encode(text)
    assert max(calls) < len(text) / 4


def test_a_tokenizer_that_cannot_be_cut_is_given_the_whole() -> None:
    text = "one line\nand another\n" * 100

    def encode(part: str) -> list[int]:
        return [0, *map(ord, part)]

    assert encode_long(text, encode, piece=50) == encode(text)


def test_questions_are_known_by_their_digests() -> None:
    written = rows(20)
    known = Questions(keys_of(written).question)
    assert all(question_key(example.messages[:1]) in known for example in written)
    assert question_key((Message("user", "question 99"),)) not in known
    assert len(known) == 20


# --- the cache -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_second_start_finds_what_the_first_found(qa_file: Path, folder: Path) -> None:
    recipe = parse_recipe({"data": str(qa_file), **TINY}, "the test")
    first = prepare(recipe)
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"findings", "rows"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    entries = {path: path.stat().st_ino for path in folder.iterdir()}
    second = prepare(recipe)
    assert {path: path.stat().st_ino for path in folder.iterdir()} == entries
    assert second.findings == first.findings
    assert list(second.rows) == list(first.rows)
    assert list(second.split.held_out) == list(first.split.held_out)


def test_changed_data_is_looked_at_again(qa_file: Path, folder: Path) -> None:
    recipe = parse_recipe({"data": str(qa_file), **TINY}, "the test")
    before = prepare(recipe)
    line = json.dumps({"prompt": "Where is the kettle?", "completion": "TODO"})
    qa_file.write_text(qa_file.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    after = prepare(recipe, force=True)
    assert len(after.rows) + len(after.split.held_out) == len(before.rows) + len(before.split.held_out) + 1
    assert after.findings != before.findings
    assert len(list(folder.iterdir())) == 4


def test_a_damaged_entry_is_not_believed(qa_file: Path, folder: Path) -> None:
    recipe = parse_recipe({"data": str(qa_file), **TINY}, "the test")
    first = prepare(recipe)
    for path in folder.iterdir():
        raw = bytearray(path.read_bytes())
        raw[4] ^= 1
        path.write_bytes(raw)
    second = prepare(recipe)
    assert (second.findings, list(second.rows)) == (first.findings, list(first.rows))
    assert all(cache.find(path.name) for path in folder.iterdir())


def test_the_longest_unused_entries_make_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGEST", 3 * 1032)
    for number, name in enumerate("abc"):
        cache.store(name, [bytes(1000)])
        path = folder / name
        path.touch()
        os.utime(path, (number, number))
    assert cache.find("a")
    cache.store("d", [bytes(1000)])
    assert {path.name for path in folder.iterdir()} == {"a", "c", "d"}


def test_a_directory_that_others_may_read_is_not_used(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    cache.keep("entry", 1)
    assert list(folder.iterdir()) == []


def test_the_cache_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, "off")
    cache.keep("entry", 1)
    assert cache.load("entry") is None
