"""`plume generate`: what stands on stdout under every setting, and why each token was taken."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from plume.cli.main import main
from plume.errors import UserError
from plume.generation.explain import Explanation, explain
from plume.generation.reply import Reply, Request
from plume.generation.sample import Sampler
from plume.models import gpt
from plume.models.bundle import Bundle, bundle, save
from plume.text.template import TEMPLATES
from plume.text.tokenizer import train_tokenizer
from plume.types import Sampling

TEXTS = ["Où est le phare ? « Au large », dit-elle. 漢字 🦉 L’été.", "Where is the boat? In the harbour."]


@pytest.fixture(scope="module")
def made() -> Bundle:
    torch.manual_seed(3)
    tokenizer = train_tokenizer("bpe", TEXTS, 300)
    model: Any = gpt.GPT(gpt.GPTConfig(tokenizer.vocab_size, 32, 64, 2, 4, 4, 8, 64))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return bundle(model, tokenizer, TEMPLATES["raw"], 8)


@pytest.fixture(scope="module")
def folder(made: Bundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    save(made, path, "# card\n")
    return str(path)


@pytest.fixture
def generate(
    folder: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `plume generate` with settings: exit code, stdout, stderr."""

    def run(*settings: str, flags: tuple[str, ...] = ()) -> tuple[int, str, str]:
        sets = [part for setting in settings for part in ("--set", setting)]
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["plume", "generate", folder, "--prompt", "Where is", *sets, *flags])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


Generate = Callable[..., tuple[int, str, str]]
FULL = Sampling(
    max_new_tokens=30,
    temperature=0.9,
    top_k=40,
    top_p=0.9,
    min_p=0.01,
    typical_p=0.95,
    repetition_penalty=1.3,
    presence_penalty=0.2,
    frequency_penalty=0.2,
    no_repeat_ngram_size=2,
    encoder_no_repeat_ngram_size=2,
    logit_bias={70: 2.0},
    seed=4,
)


def explained(made: Bundle, sampling: Sampling) -> list[Explanation]:
    ids = tuple(made.tokenizer.encode("Where is the boat? Where is"))
    return list(explain(made, Request(ids, sampling, reply=False)))


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=30), replace(FULL, temperature=0.0), FULL])
def test_the_answer_is_the_one_without_explanation(made: Bundle, sampling: Sampling) -> None:
    steps = explained(made, sampling)
    ids = tuple(made.tokenizer.encode("Where is the boat? Where is"))
    reply = Reply(made, Request(ids, sampling, reply=False), 0)
    while reply.finish is None:
        with torch.no_grad():
            hidden, _ = made.model(torch.tensor([reply.read]))
        reply.take(made.model.head(hidden[0, -1]).detach())
        reply.slide()
    assert [step.chunk for step in steps] == reply.chunks


def test_every_setting_that_is_on_is_accounted_for_in_order(made: Bundle) -> None:
    steps = explained(made, FULL)
    names = [
        "logit_bias",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
    ]
    for step in steps:
        assert [effect.setting for effect in step.effects] == names
        left = made.model.vocab_size
        for effect in step.effects:
            left -= effect.removed
            assert effect.left == left
            assert len(effect.gone) == min(3, effect.removed)
        assert step.left == left
    assert any(
        effect.setting == "encoder_no_repeat_ngram_size" and effect.removed for s in steps for effect in s.effects
    )


def test_probabilities_are_the_models_before_and_the_choices_after(made: Bundle) -> None:
    (step, *_) = explained(made, FULL)
    ids = made.tokenizer.encode("Where is the boat? Where is")
    with torch.no_grad():
        hidden, _ = made.model(torch.tensor([ids]))
        logits = made.model.head(hidden[0, -1])
    *_, last = Sampler(FULL, ids).stages(logits)
    before, after = logits.softmax(-1), last.scores_V(len(logits)).softmax(-1)
    for candidate in step.candidates:
        assert candidate.before == pytest.approx(float(before[candidate.id]), rel=1e-4)
        assert candidate.after == pytest.approx(float(after[candidate.id]), rel=1e-3)
        assert (candidate.removed_by is None) == (candidate.after > 0)
    assert int(before.argmax()) in {candidate.id for candidate in step.candidates}
    assert step.chunk.ids[-1] in {candidate.id for candidate in step.candidates}


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        (Sampling(num_beams=2), "num_beams=2"),
        (Sampling(n=2, temperature=1), "n=2"),
        (Sampling(prompt_lookup_num_tokens=2), "nothing to explain"),
    ],
)
def test_what_is_not_decided_token_by_token_is_refused(made: Bundle, sampling: Sampling, said: str) -> None:
    with pytest.raises(UserError, match=said):
        next(explain(made, Request((1, 2), sampling)))


def test_explain_says_what_removed_the_first_choice(generate: Generate, made: Bundle) -> None:
    _, out, _ = generate("max_new_tokens=1", flags=("--json",))
    first = json.loads(out)["ids"][0]
    code, out, err = generate("max_new_tokens=2", f"logit_bias={{{first}: -100}}", flags=("--explain",))
    assert (code, err) == (0, "")
    assert "was made less likely" in out
    assert f"{first} " in out
    code, out, _ = generate("temperature=0.5", "top_k=3", "max_new_tokens=2", "seed=1", flags=("--explain",))
    assert code == 0
    assert "of 3 tokens left" in out or "from 3 tokens left" in out
    assert f"top_k=3: removed {made.model.vocab_size - 3}, left 3" in out
    assert "removed by top_k" in out


def test_explain_as_json_holds_the_answer_and_its_steps(generate: Generate) -> None:
    settings = ("temperature=0.7", "top_p=0.8", "max_new_tokens=4", "seed=2")
    code, out, _ = generate(*settings, flags=("--explain", "--json"))
    value = json.loads(out)
    assert code == 0
    assert {key: value[key] for key in ("text", "ids", "finish")} == json.loads(
        generate(*settings, flags=("--json",))[1]
    )
    assert [step["id"] for step in value["steps"]] == value["ids"]
    (temperature, top_p) = value["steps"][0]["settings"]
    assert (temperature["setting"], temperature["value"], temperature["removed"]) == ("temperature", 0.7, 0)
    assert (top_p["setting"], top_p["value"]) == ("top_p", 0.8)


# --- several answers, log-probabilities, warnings ---


def test_several_answers_stand_apart(generate: Generate) -> None:
    code, out, _ = generate("temperature=1", "n=3", "seed=1", "max_new_tokens=3", flags=("--json",))
    value = json.loads(out)
    assert code == 0
    texts = [value["text"], *(other["text"] for other in value["others"])]
    assert len(texts) == 3
    assert generate("temperature=1", "n=3", "seed=1", "max_new_tokens=3")[1] == "\n\n".join(texts) + "\n"


def test_beams_come_best_first(generate: Generate) -> None:
    code, out, _ = generate("num_beams=3", "n=2", "max_new_tokens=4", flags=("--json",))
    value = json.loads(out)
    assert code == 0
    assert len(value["ids"]) == 4
    assert len(value["others"]) == 1
    assert value["others"][0]["ids"] != value["ids"]


def test_guesses_from_the_prompt_change_no_answer(generate: Generate) -> None:
    assert generate("max_new_tokens=20") == generate("max_new_tokens=20", "prompt_lookup_num_tokens=5")


def test_logprobs_are_those_of_the_model(generate: Generate) -> None:
    code, out, err = generate("logprobs=2", "max_new_tokens=3", flags=("--json",))
    value = json.loads(out)
    assert (code, err) == (0, "")
    assert [one["id"] for one in value["logprobs"]] == value["ids"]
    assert all(one["top"][0][0] == one["id"] and one["logprob"] <= 0 for one in value["logprobs"])
    assert "--json" in generate("logprobs=2", "max_new_tokens=3")[2]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("logit_bias={300000: 1}", "there is no token 300000"),
        ("logit_bias={a: 1}", "token ids"),
        ("num_beams=2", ""),
        ("best_of=3", "same answer 3 times"),
    ],
)
def test_settings_are_refused_or_honoured(generate: Generate, setting: str, said: str) -> None:
    code, _, err = generate(setting, "max_new_tokens=2")
    assert (code, said in err) == (2 if said else 0, True)


def test_a_setting_that_surprises_is_noted_on_stderr(generate: Generate) -> None:
    code, out, err = generate("repetition_penalty=0.5", "max_new_tokens=2")
    assert code == 0
    assert "rewards repetition" in err
    assert "note" not in out
