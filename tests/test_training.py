"""What a training run promises: the right loss, exact repeats, exact resume, a proof at the end."""

import hashlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig

import plume
from conftest import TINY, write_rows
from plume.checks.tokens import unknown
from plume.errors import DataError, RunFailed, UserError
from plume.events import Evaluated, Finished, Saved, Started, Step, TrainEvent
from plume.models.catalog import build_model
from plume.recipe import Recipe
from plume.runs import Run
from plume.text.encoded import EncodedRows
from plume.text.tokenizer import train_tokenizer
from plume.training.batches import IGNORE, batches, collate
from plume.training.checkpoint import checkpoints
from plume.training.learner import Objective
from plume.training.loop import train
from plume.training.optim import learning_rate
from plume.training.prepare import prepare
from plume.types import Encoded

COMMAND = [sys.executable, "-c", "from plume.cli.main import main; main()"]


def recipe(data: Path, **changes: Any) -> Recipe:
    return Recipe.model_validate({"data": str(data), **TINY, "max_steps": 6, **changes})


def run(recipe: Recipe, path: Path, **options: Any) -> list[TrainEvent]:
    return list(train(recipe, path, **options))


def digest(path: Path) -> str:
    return hashlib.sha256((path / "model" / "model.safetensors").read_bytes()).hexdigest()


# --- what is learnt ---


def test_only_the_reply_and_its_end_token_are_trained(qa_file: Path) -> None:
    prepared = prepare(recipe(qa_file))
    tokenizer = prepared.bundle.tokenizer
    for row, example in zip(prepared.rows, prepared.split.train, strict=True):
        learnt = [id for id, trained in zip(row.ids, row.trained, strict=True) if trained]
        assert learnt[-1] == tokenizer.eos_id
        assert tokenizer.decode(learnt) == example.messages[-1].content


def test_targets_are_shifted_by_one_and_padding_is_never_one() -> None:
    batch = collate([Encoded((5, 6, 7, 8), (False, False, True, True)), Encoded((5, 9), (False, True))], pad_id=0)
    assert batch.ids_BT.tolist() == [[5, 6, 7], [5, 0, 0]]
    assert batch.labels_BT.tolist() == [[IGNORE, 7, 8], [9, IGNORE, IGNORE]]
    assert (batch.lengths_B.tolist(), batch.trained) == ([3, 1], 3)


def test_the_loss_is_the_cross_entropy_of_all_logits() -> None:
    torch.manual_seed(0)
    model = build_model(
        "gru", {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "dropout": 0, "max_length": 9}
    )
    batch = collate(
        [Encoded((5, 6, 7, 8, 2), (False, False, True, True, True)), Encoded((5, 9, 2), (False, True, True))], 0
    )
    hidden, _ = model(batch.ids_BT)
    whole = F.cross_entropy(
        model.head(hidden).flatten(0, 1), batch.labels_BT.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    torch.testing.assert_close(Objective(model)(batch), whole)


def test_accumulated_steps_equal_one_large_batch(qa_file: Path, tmp_path: Path) -> None:
    """Normalised by the valid tokens of the whole accumulation, not by the mean of means."""
    common: dict[str, Any] = {"test_size": 0, "dropout": 0.0, "max_steps": 1, "learning_rate": 0.01}
    large = run(recipe(qa_file, per_device_train_batch_size=15, **common), tmp_path / "large")
    small = run(
        recipe(qa_file, per_device_train_batch_size=5, gradient_accumulation_steps=3, **common), tmp_path / "small"
    )
    one, three = (next(event for event in events if isinstance(event, Step)) for events in (large, small))
    assert one.tokens == three.tokens
    assert one.loss == pytest.approx(three.loss, rel=1e-5)
    assert one.grad_norm == pytest.approx(three.grad_norm, rel=1e-4)


def test_an_epoch_shows_every_row_once_in_batches_of_similar_length() -> None:
    rows = EncodedRows.of(Encoded(tuple(range(3, 5 + size)), (True,) * (size + 2)) for size in range(20))
    stream = batches(rows, batch_size=4, max_length=64, pad_id=0, seed=1)
    epoch = [next(stream) for _ in range(5)]
    assert sorted(int(size) for _, batch in epoch for size in batch.lengths_B) == list(range(1, 21))
    assert all(int(batch.lengths_B.max() - batch.lengths_B.min()) <= 3 for _, batch in epoch)
    assert [position for position, _ in epoch] == [0.2, 0.4, 0.6, 0.8, 1.0]


def packable() -> list[Encoded]:
    """Rows of 2 to 21 tokens; no token stands in two rows, and those before the middle are not trained."""
    sizes = [2 + 7 * number % 20 for number in range(40)]
    ids = iter(range(5, 5 + sum(sizes)))
    return [
        Encoded(tuple(next(ids) for _ in range(size)), (False,) * (size // 2) + (True,) * (size - size // 2))
        for size in sizes
    ]


def test_packed_lines_hold_every_row_once_and_no_target_crosses_from_one_to_the_next() -> None:
    rows = packable()
    batch = collate(rows, pad_id=0, packing=True)
    assert batch.segments_BT is not None
    assert batch.ids_BT.shape[1] == 20
    assert len(batch.ids_BT) < len(rows) * 2 / 3
    of = {id: number for number, row in enumerate(rows) for id in row.ids}
    seen = []
    for ids, labels, segments in zip(batch.ids_BT, batch.labels_BT, batch.segments_BT, strict=True):
        for segment in range(int(segments.max()) + 1):
            inside = segments == segment
            number = of[int(ids[inside][0])]
            assert tuple(ids[inside].tolist()) == rows[number].ids[:-1]
            assert all(label == IGNORE or of[int(label)] == number for label in labels[inside])
            seen.append(number)
        assert torch.equal(segments < 0, ids == 0)
    assert sorted(seen) == list(range(len(rows)))
    assert batch.trained == collate(rows, pad_id=0).trained == sum(sum(row.trained[1:]) for row in rows)


def test_packing_changes_the_layout_and_not_the_loss() -> None:
    torch.manual_seed(0)
    rows = packable()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "dropout": 0.0, "max_length": 32}
    model = build_model("gpt", {**sizes, "vocab_size": 5 + sum(len(row.ids) for row in rows)})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    together, apart = Objective(model)(collate(rows, 0, packing=True)), Objective(model)(collate(rows, 0))
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-4)


def test_packing_is_chosen_for_rows_of_very_different_length(qa_file: Path, tmp_path: Path) -> None:
    assert prepare(recipe(qa_file)).recipe.packing is False
    uneven = [
        {"prompt": f"Say {number}.", "completion": " ".join([f"number{number}"] * (1 + 30 * (number % 4 == 0)))}
        for number in range(12)
    ]
    chosen = prepare(recipe(write_rows(tmp_path / "uneven.jsonl", uneven), model="gpt"))
    assert chosen.recipe.packing is True


def test_a_packed_run_resumes_where_it_was(qa_file: Path, tmp_path: Path) -> None:
    packed = recipe(qa_file, model="gpt", packing=True, save_steps=3)
    run(packed, tmp_path / "whole")
    events = train(packed, tmp_path / "resumed")
    next(event for event in events if isinstance(event, Saved))
    events.close()
    run(packed, tmp_path / "resumed", resume=True)
    assert digest(tmp_path / "resumed") == digest(tmp_path / "whole")


def test_long_text_is_read_whole_each_epoch_in_windows_that_move() -> None:
    text = Encoded(tuple(range(1000)), (True,) * 1000)
    stream = batches(EncodedRows.of([text]), batch_size=1000, max_length=64, pad_id=0, seed=0)
    seen = []
    for _ in range(2):
        _, batch = next(stream)
        targets = batch.labels_BT[batch.labels_BT != IGNORE].tolist()
        assert sorted(targets) == list(range(1, 1000))
        seen.append(sorted(batch.ids_BT[:, 0].tolist()))
    assert seen[0] != seen[1]


def test_skipping_batches_finds_the_same_place() -> None:
    rows = EncodedRows.of(Encoded(tuple(range(3, 5 + size)), (True,) * (size + 2)) for size in range(20))
    options: dict[str, Any] = {"batch_size": 3, "max_length": 64, "pad_id": 0, "seed": 3}
    straight, skipped = batches(rows, **options), batches(rows, **options, skip=11)
    for _ in range(11):
        next(straight)
    for _ in range(9):
        (at, one), (there, other) = next(straight), next(skipped)
        assert at == there
        assert torch.equal(one.ids_BT, other.ids_BT)


def test_the_rate_warms_up_and_decays() -> None:
    made = Recipe(data="x", learning_rate=1.0, warmup_steps=4, max_steps=100)
    rates = [learning_rate(step, made) for step in range(1, 101)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert max(rates) <= 1.0
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.05)


# --- what a run leaves ---


def test_a_run_yields_its_story_and_leaves_a_whole_directory(qa_file: Path, tmp_path: Path) -> None:
    events = run(recipe(qa_file, eval_steps=3, test_size=0.2, logging_steps=2), tmp_path / "run")
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert [event.step for event in events if isinstance(event, Step)] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events if isinstance(event, Evaluated)] == [3, 6]
    assert all(event.path.is_dir() for event in events if isinstance(event, Saved))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "recipe.yaml",
        "run.json",
        "metrics.jsonl",
        "samples.jsonl",
        "checkpoints",
        "model",
        "eval",
        "report.html",
    }
    info = Run(tmp_path / "run").info()
    assert info["status"] == "finished"
    assert info["train_seconds"] > 0
    assert set(info["scores"]) == {"held_out", "recall"}
    steps = [row["step"] for row in Run(tmp_path / "run").metrics() if "train_loss" in row]
    assert steps == [1, 2, 4, 6]


def test_the_recipe_of_a_run_repeats_it(qa_file: Path, tmp_path: Path) -> None:
    run(recipe(qa_file), tmp_path / "first")
    run(Run(tmp_path / "first").recipe(), tmp_path / "second")
    assert digest(tmp_path / "first") == digest(tmp_path / "second")


def test_the_seed_decides_the_weights(qa_file: Path, tmp_path: Path) -> None:
    run(recipe(qa_file, seed=1), tmp_path / "one")
    run(recipe(qa_file, seed=2), tmp_path / "two")
    assert digest(tmp_path / "one") != digest(tmp_path / "two")


def test_the_best_checkpoint_becomes_the_model(qa_file: Path, tmp_path: Path) -> None:
    """At an absurd rate the last weights are worse than the first; those that were best are kept."""
    events = run(recipe(qa_file, eval_steps=1, learning_rate=3.0, lr_scheduler_type="constant"), tmp_path / "run")
    losses = {event.step: event.scores["loss"] or 0.0 for event in events if isinstance(event, Evaluated)}
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.best_step == min(losses, key=lambda step: losses[step])
    kept = {path.name for path in checkpoints(tmp_path / "run" / "checkpoints")}
    assert f"step-{finished.best_step:06d}" in kept
    assert len(kept) <= 3


def test_a_diverged_run_fails_and_says_so(qa_file: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="diverged"):
        run(recipe(qa_file, learning_rate=1e30, max_steps=20, lr_scheduler_type="constant"), tmp_path / "run")
    assert Run(tmp_path / "run").info()["status"] == "failed"


def test_closing_the_generator_leaves_a_run_that_resumes(qa_file: Path, tmp_path: Path) -> None:
    whole = recipe(qa_file, save_steps=2)
    events = train(whole, tmp_path / "run")
    for event in events:
        if isinstance(event, Saved):
            events.close()
    assert Run(tmp_path / "run").info()["status"] == "interrupted"
    run(whole, tmp_path / "run", resume=True)
    run(whole, tmp_path / "straight")
    assert digest(tmp_path / "run") == digest(tmp_path / "straight")
    assert Run(tmp_path / "run").metrics()[0]["step"] == 1
    assert [row["step"] for row in Run(tmp_path / "run").metrics() if "train_loss" in row] == [1, 6]


def test_resuming_a_finished_run_does_nothing(qa_file: Path, tmp_path: Path) -> None:
    run(recipe(qa_file), tmp_path / "run")
    before = digest(tmp_path / "run")
    assert run(recipe(qa_file), tmp_path / "run", resume=True) == []
    assert digest(tmp_path / "run") == before


def test_resuming_on_changed_data_is_refused(qa_file: Path, tmp_path: Path) -> None:
    events = train(recipe(qa_file), tmp_path / "run")
    next(events)
    events.close()
    qa_file.write_text(qa_file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="has changed"):
        run(recipe(qa_file), tmp_path / "run", resume=True)


def _killed_at(command: list[str], lines: int) -> Iterator[str]:
    """Start a run, let it print so many events, then kill it where it stands."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            yield json.loads(line)["event"]
            if number >= lines:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()


@pytest.mark.parametrize("kind", ["gpt", "gru"])
def test_runs_killed_anywhere_end_with_the_same_weights(kind: str, qa_file: Path, tmp_path: Path) -> None:
    """Ten kills at places drawn over the whole length of a run, each then resumed to the end."""
    whole = recipe(
        qa_file, model=kind, max_steps=24, eval_steps=6, save_steps=4, logging_steps=1, dropout=0.1, test_size=0.2
    )
    straight = run(whole, tmp_path / "straight")
    printed = sum(not isinstance(event, Started) for event in straight)
    chance = random.Random(7)
    places = sorted(chance.sample(range(printed - 1), 5))
    file = tmp_path / "recipe.yaml"
    file.write_bytes((tmp_path / "straight" / "recipe.yaml").read_bytes())
    for place in places:
        path = tmp_path / f"killed-{place}"
        list(_killed_at([*COMMAND, "train", "--recipe", str(file), "--json", "--output-dir", str(path)], place))
        assert Run(path).info()["status"] == "running"
        run(whole, path, resume=True)
        assert digest(path) == digest(tmp_path / "straight"), f"killed after event {place}"
        assert [row["step"] for row in Run(path).metrics() if "train_loss" in row] == list(range(1, 25))


# --- what is measured ---


def test_multi_turn_replies_are_scored_each_with_its_own_history(tmp_path: Path) -> None:
    conversations = [
        {
            "messages": [
                {"role": "system", "content": "You keep the inn."},
                {"role": "user", "content": f"I bring {thing}."},
                {"role": "assistant", "content": f"Thank you for the {thing}."},
                {"role": "user", "content": "What did I bring?"},
                {"role": "assistant", "content": f"You brought {thing}."},
            ]
        }
        for thing in ("salt", "wood", "wool")
    ]
    data = write_rows(tmp_path / "talk.jsonl", conversations)
    run(recipe(data, test_size=0), tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "eval" / "recall.json").read_text(encoding="utf-8"))["rows"]
    assert sorted((row["line"], row["turn"]) for row in rows) == [(line, turn) for line in (1, 2, 3) for turn in (1, 2)]


def test_a_bigram_on_questions_says_what_it_cannot(qa_file: Path, tmp_path: Path) -> None:
    finished = run(recipe(qa_file, model="bigram"), tmp_path / "run")[-1]
    assert isinstance(finished, Finished)
    assert finished.limit is not None
    assert "cannot take the question into account" in finished.limit
    assert Run(tmp_path / "run").info()["limit"] == finished.limit
    assert finished.limit in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_bigram_on_text_ends_at_the_bigram_entropy(tmp_path: Path) -> None:
    chance = random.Random(0)
    text = "".join(chance.choice({"a": "bc", "b": "aac", "c": "ab"}[last]) for last in "abc" * 4000)
    data = tmp_path / "letters.txt"
    data.write_text(text, encoding="utf-8")
    finished = run(recipe(data, model="bigram", hidden_size=16, max_steps=150), tmp_path / "run")[-1]
    assert isinstance(finished, Finished)
    assert finished.bigram_entropy is not None
    assert finished.scores["recall"]["loss"] == pytest.approx(finished.bigram_entropy, rel=0.02)
    assert finished.sample is not None
    assert set(finished.sample) <= set("abc")


def test_contradictions_stop_training_before_anything_is_written(qa_rows: list[dict[str, str]], tmp_path: Path) -> None:
    data = write_rows(
        tmp_path / "qa.jsonl", [*qa_rows, {"prompt": "where is the LAMP", "completion": '{"lieu": "gone"}'}]
    )
    with pytest.raises(DataError) as caught:
        run(recipe(data), tmp_path / "run")
    assert [finding.code for finding in caught.value.findings] == ["D203"]
    assert not (tmp_path / "run").exists()
    assert isinstance(run(recipe(data), tmp_path / "run", force=True)[-1], Finished)


def test_the_python_names_do_what_the_verbs_do(qa_file: Path, tmp_path: Path) -> None:
    assert list(plume.check(qa_file)) == []
    assert isinstance(list(plume.train(recipe(qa_file), tmp_path / "run"))[-1], Finished)
    bundle = plume.load(tmp_path / "run")
    engine = plume.Engine(bundle)
    example = next(iter(prepare(recipe(qa_file)).split.train))
    scored = list(plume.evaluate(engine, [example]))
    assert scored[0].reference == example.messages[-1].content


def test_a_foreign_model_keeps_its_own_chat_template(qa_file: Path, tmp_path: Path) -> None:
    """Its replies are found by the prefix rule, and its end of turn is learnt and stops answers."""
    tokenizer = train_tokenizer("bpe", ["Where is the boat?", "Où est « la cloche » ?"], 400)
    tokenizer = tokenizer.with_special_tokens(["<|im_start|>", "<|im_end|>"], {})
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            pad_token_id=tokenizer.eos_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_id,
        )
    )
    model.save_pretrained(tmp_path / "base")
    chatml = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer.save(tmp_path / "base", chat_template=chatml)
    only = {
        "data": str(qa_file),
        "model": str(tmp_path / "base"),
        "max_steps": 2,
        "eval_samples": 2,
        "max_new_tokens": 4,
    }
    run(Recipe.model_validate(only), tmp_path / "run")
    assert (tmp_path / "run" / "model" / "chat_template.jinja").read_text(encoding="utf-8") == chatml
    end = tokenizer.special_tokens["<|im_end|>"]
    assert end in plume.load(tmp_path / "run").stop_ids
    prepared = prepare(Recipe.model_validate(only))
    for row in prepared.rows:
        learnt = [id for id, trained in zip(row.ids, row.trained, strict=True) if trained]
        assert learnt[-1] == end
        assert learnt.count(end) == 1


def test_fine_tuning_on_plain_text_adds_no_turns(qa_file: Path, tmp_path: Path) -> None:
    base = tmp_path / "first"
    run(recipe(qa_file), base)
    (base / "model" / "chat_template.jinja").unlink()
    text = tmp_path / "poem.txt"
    text.write_text("la mer et le phare\n" * 50, encoding="utf-8")
    prepared = prepare(Recipe(data=str(text), model=str(base), max_steps=2))
    assert all(all(row.trained) for row in prepared.rows)
    assert prepared.bundle.tokenizer.decode(prepared.rows[0].ids).startswith("la mer")


def test_a_fraction_of_an_epoch_is_a_valid_choice(tmp_path: Path) -> None:
    """One step of a long text is a tiny share of an epoch, and must still be one that the recipe allows."""
    text = tmp_path / "long.txt"
    text.write_text("la mer et le phare, le phare et la mer\n" * 20_000, encoding="utf-8")
    prepared = prepare(Recipe.model_validate({"data": str(text), **TINY, "max_steps": 1}))
    assert 0 < (prepared.recipe.num_train_epochs or 0) < 0.01


def test_leaving_at_the_last_event_leaves_a_finished_run(qa_file: Path, tmp_path: Path) -> None:
    events = train(recipe(qa_file), tmp_path / "run")
    assert any(isinstance(event, Finished) for event in iter(lambda: next(events), None))
    events.close()
    assert Run(tmp_path / "run").info()["status"] == "finished"


def test_a_question_taught_in_mid_conversation_is_never_held_out(tmp_path: Path) -> None:
    first = [{"role": "user", "content": "q 0"}, {"role": "assistant", "content": "same"}]
    rows = []
    for number in range(12):
        opening = [{**first[0], "content": f"q {number}"}, first[1]]
        closing = [{"role": "user", "content": "next"}, {"role": "assistant", "content": f"unique {number}"}]
        rows += [{"messages": opening}, {"messages": [*opening, *closing]}]
    data = write_rows(tmp_path / "talk.jsonl", rows)
    prepared = prepare(recipe(data, test_size=0.3))
    assert prepared.split.held_out == ()


def test_a_result_that_cannot_be_proven_is_no_model(qa_file: Path, tmp_path: Path) -> None:
    """At a rate of nearly nothing no float changes; such a run has failed, and leaves no model to be asked."""
    with pytest.raises(RunFailed, match="no weight changed"):
        run(recipe(qa_file, learning_rate=1e-300, weight_decay=0.0), tmp_path / "run")
    assert Run(tmp_path / "run").info()["status"] == "failed"
    assert not (tmp_path / "run" / "model").exists()


def test_rows_that_the_tokenizer_does_not_know_are_named(qa_file: Path) -> None:
    """With advice that can be followed: a base brings its own tokenizer."""
    prepared = prepare(recipe(qa_file, tokenizer="char", vocab_size=14, template="chat"))
    (found,) = [finding for finding in prepared.findings if finding.code == "D305"]
    assert "tokenizer=bpe" in found.hint
    (for_a_base,) = unknown(prepared.split.train, prepared.rows, prepared.bundle.tokenizer.special_tokens["<unk>"])
    assert "tokenizer=" not in for_a_base.hint


def test_a_contradiction_is_one_of_meaning_not_of_normal_form(tmp_path: Path) -> None:
    rows = [{"prompt": f"Où {i} ?", "completion": "Au café."} for i in range(3)]
    data = write_rows(tmp_path / "qa.jsonl", [*rows, {"prompt": "Où 1 ?", "completion": "Au cafe\u0301."}])
    assert "D203" not in {finding.code for finding in plume.check(data)}
