"""How the next token is chosen: as transformers does where both have the setting, seeded, nothing silently ignored."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import logits_process as theirs
from transformers.generation.utils import GenerationMixin

from plume.errors import PlumeError
from plume.generation import filters
from plume.generation.sample import FILTERS, SHAPING, Sampler, check_logits, logprob_of
from plume.types import Sampling

V = 60


def lively(seed: int, size: int = V) -> Tensor:
    """Logits as a model makes them: a few likely tokens, many that are not."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


def ids_of(seed: int, count: int, size: int = 12) -> list[int]:
    """Tokens that repeat themselves."""
    return torch.randint(size, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def rows(ids: Sequence[int]) -> Any:
    return torch.tensor([ids], dtype=torch.long)


def sampler(sampling: Sampling, prompt: Sequence[int] = (), reply: Sequence[int] = ()) -> Sampler:
    made = Sampler(sampling, prompt)
    for id in reply:
        made.push(id)
    return made


def distribution(made: Sampler, logits_V: Tensor, allowed_V: Tensor | None = None) -> Tensor:
    """The probabilities (V,) that a token is drawn with."""
    *_, last = made.stages(logits_V, allowed_V)
    return last.scores_V(len(logits_V)).softmax(dim=-1)


# --- each setting against transformers' processor ---

OWN_AND_THEIRS: list[tuple[str, dict[str, Any], Callable[[Sequence[int]], Any]]] = [
    ("temperature", {"temperature": 0.7}, lambda _: theirs.TemperatureLogitsWarper(0.7)),
    ("top_k", {"top_k": 12}, lambda _: theirs.TopKLogitsWarper(12)),
    ("top_k", {"top_k": 500}, lambda _: theirs.TopKLogitsWarper(500)),
    ("top_p", {"top_p": 0.8}, lambda _: theirs.TopPLogitsWarper(0.8)),
    ("top_p", {"top_p": 0.01}, lambda _: theirs.TopPLogitsWarper(0.01)),
    ("min_p", {"min_p": 0.1}, lambda _: theirs.MinPLogitsWarper(0.1)),
    ("min_p", {"min_p": 1.0}, lambda _: theirs.MinPLogitsWarper(1.0)),
    ("typical_p", {"typical_p": 0.3}, lambda _: theirs.TypicalLogitsWarper(0.3)),
    ("typical_p", {"typical_p": 0.95}, lambda _: theirs.TypicalLogitsWarper(0.95)),
    ("repetition_penalty", {"repetition_penalty": 1.4}, lambda _: theirs.RepetitionPenaltyLogitsProcessor(1.4)),
    ("repetition_penalty", {"repetition_penalty": 0.6}, lambda _: theirs.RepetitionPenaltyLogitsProcessor(0.6)),
    (
        "logit_bias",
        {"logit_bias": {3: 2.5, 7: -100.0}},
        lambda _: theirs.SequenceBiasLogitsProcessor([[[3], 2.5], [[7], -100.0]]),
    ),
    (
        "encoder_no_repeat_ngram_size",
        {"encoder_no_repeat_ngram_size": 2},
        lambda prompt: theirs.EncoderNoRepeatNGramLogitsProcessor(2, rows(prompt)),
    ),
    (
        "encoder_no_repeat_ngram_size",
        {"encoder_no_repeat_ngram_size": 1},
        lambda prompt: theirs.EncoderNoRepeatNGramLogitsProcessor(1, rows(prompt)),
    ),
]


@pytest.mark.parametrize(("name", "settings", "theirs_of"), OWN_AND_THEIRS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_setting_does_what_transformers_does(
    name: str, settings: dict[str, Any], theirs_of: Callable[[Sequence[int]], Any], seed: int
) -> None:
    logits, prompt, reply = lively(seed), ids_of(seed, 30), ids_of(seed + 9, 20)
    made = sampler(Sampling(**{"temperature": 1.0, **settings}), prompt, reply)
    expected = theirs_of(prompt)(rows(prompt + reply), logits[None].clone())[0]
    *_, last = made.stages(logits)
    assert last.name == name
    torch.testing.assert_close(last.scores_V(V), expected)
    assert not torch.equal(last.scores_V(V), logits) or settings == {"top_k": 500}


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 25])
def test_ngrams_of_the_reply_are_those_of_transformers_given_the_reply_alone(size: int, length: int) -> None:
    reply = ids_of(4, length, 4)
    expected = theirs.NoRepeatNGramLogitsProcessor(size)(rows(reply), lively(0)[None])[0]
    made = sampler(Sampling(no_repeat_ngram_size=size), ids_of(5, 40, 4), reply)
    torch.testing.assert_close(made.shaped(lively(0)).scores_N, expected)


def test_presence_counts_once_and_frequency_each_time_the_reply_has_said_it() -> None:
    """OpenAI: mu[j] -> mu[j] - c[j] * frequency - (c[j] > 0) * presence."""
    logits, reply = lively(0), [5, 5, 5, 8]
    made = sampler(Sampling(presence_penalty=0.5, frequency_penalty=-0.25), [5, 9, 9], reply)
    expected = logits.clone()
    expected[5] += 3 * 0.25 - 0.5
    expected[8] += 0.25 - 0.5
    torch.testing.assert_close(made.shaped(logits).scores_N, expected)


def test_penalties_follow_hundreds_of_different_tokens() -> None:
    reply = [*range(700), *range(0, 700, 7)]
    made = sampler(Sampling(frequency_penalty=1.0, repetition_penalty=2.0), [800], reply)
    logits = torch.ones(1000)
    said = torch.bincount(torch.tensor(reply), minlength=1000).float()
    seen = said.bool()
    seen[800] = True
    torch.testing.assert_close(made.shaped(logits).scores_N, torch.where(seen, 0.5, 1.0) - said)


MIXES = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.3, 1.0, 1.7])},
    optional={
        "top_k": st.integers(1, 70),
        "top_p": st.floats(0.05, 0.999),
        "min_p": st.floats(0.001, 0.5),
        "typical_p": st.floats(0.05, 0.99),
        "repetition_penalty": st.floats(0.5, 2.0),
        "encoder_no_repeat_ngram_size": st.integers(1, 4),
        "logit_bias": st.dictionaries(st.integers(0, V - 1), st.floats(-5, 5), min_size=1, max_size=5),
    },
)


def processors_of_transformers(settings: dict[str, Any], prompt: list[int]) -> Any:
    """What `generate` would build, in its own order."""
    values = dict(settings)
    bias = values.pop("logit_bias", None)
    config = GenerationConfig(do_sample=True, **values)
    config.top_k = settings.get("top_k", 0)
    config.top_p = settings.get("top_p", 1.0)
    config.typical_p = settings.get("typical_p", 1.0)
    config.sequence_bias = [[[id], float(value)] for id, value in bias.items()] if bias else None
    holder: Any = type("Holder", (GenerationMixin,), {"config": type("C", (), {"is_encoder_decoder": False})()})()
    return holder._get_logits_processor(config, len(prompt), torch.tensor([prompt]), device="cpu")


@examples(deadline=None, derandomize=True)
@given(MIXES, st.integers(0, 10_000))
def test_settings_together_give_the_distribution_of_transformers(settings: dict[str, Any], seed: int) -> None:
    logits, prompt, reply = lively(seed), ids_of(seed, 15), ids_of(seed + 1, 10)
    made = sampler(Sampling(**settings), prompt, reply)
    processors = processors_of_transformers(settings, prompt)
    expected = processors(rows(prompt + reply), logits[None].clone())[0].softmax(dim=-1)
    torch.testing.assert_close(distribution(made, logits), expected, atol=1e-5, rtol=1e-4)


def test_every_sampling_setting_stands_in_the_tables_once() -> None:
    names = [step.name for step in (*SHAPING, *FILTERS)]
    assert len(names) == len(set(names))
    assert set(names) <= set(Sampling.__dataclass_fields__)


@pytest.mark.parametrize("mass", [0.2, 0.9, 0.999])
@pytest.mark.parametrize(
    ("keep", "warper"), [(filters.top_p, theirs.TopPLogitsWarper), (filters.typical_p, theirs.TypicalLogitsWarper)]
)
def test_masses_of_a_large_vocabulary_are_those_of_transformers(keep: Any, warper: Any, mass: float) -> None:
    for spread in (0.0001, 1.0, 6.0):  # nearly even: all of it must be sorted; steep: the front is enough
        logits = torch.randn(30_000, generator=torch.Generator().manual_seed(1)) * spread
        expected = warper(mass)(None, logits[None])[0].isfinite()
        differing = keep(logits, mass).isfinite() != expected
        # float32 sums of 30,000 disagree about the edge
        assert float(logits.softmax(dim=-1)[differing].sum()) < 5e-4


# --- drawing ---


def test_draws_follow_the_distribution() -> None:
    made = Sampler(Sampling(temperature=1.0), [])
    logits = torch.tensor([0.1, 0.6, 0.0, 0.3]).log()
    counts = torch.bincount(torch.tensor([made.choose(logits).id for _ in range(4000)]), minlength=4)
    torch.testing.assert_close(counts / 4000, torch.tensor([0.1, 0.6, 0.0, 0.3]), atol=0.03, rtol=0)
    assert counts[2] == 0


def test_a_seed_and_a_choice_decide_what_is_drawn() -> None:
    def drawn(seed: int, choice: int) -> list[int]:
        made = Sampler(Sampling(temperature=1.0, seed=seed), [], choice)
        return [made.choose(torch.zeros(1000)).id for _ in range(10)]

    assert drawn(3, 0) == drawn(3, 0) == drawn(2, 1)
    assert drawn(3, 0) != drawn(3, 1)


def test_one_position_may_be_asked_again_with_less_allowed() -> None:
    made = sampler(Sampling(repetition_penalty=1.3, frequency_penalty=1.0, no_repeat_ngram_size=2), [1, 2], [3, 4, 3])
    allowed = torch.ones(V, dtype=torch.bool)
    order = []
    for _ in range(V - 1):  # token 4 would repeat an n-gram
        order.append(made.choose(lively(0), allowed).id)
        allowed[order[-1]] = False
    again = made.choose(lively(0)).id
    assert again == order[0]
    assert sorted([*order, 4]) == list(range(V))


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1.5])
def test_only_what_is_allowed_comes_whatever_the_filters(temperature: float) -> None:
    allowed = torch.zeros(V, dtype=torch.bool)
    unlikely = lively(0).argsort()[:3]
    allowed[unlikely] = True
    made = Sampler(Sampling(temperature=temperature, top_k=5, top_p=0.9, min_p=0.01), [])
    assert {made.choose(lively(0), allowed).id for _ in range(50)} <= set(unlikely.tolist())


def test_greedy_takes_the_likeliest_and_says_that_nothing_else_is_needed() -> None:
    made = Sampler(Sampling(), [])
    assert made.plain
    assert made.choose(lively(0)).id == int(lively(0).argmax())
    for asks in ({"logprobs": 0}, {"frequency_penalty": 0.1}, {"temperature": 0.1}, {"logit_bias": {1: 1.0}}):
        assert not Sampler(replace(Sampling(), **asks), []).plain


def test_a_fork_goes_its_own_way() -> None:
    made = sampler(
        Sampling(repetition_penalty=2.0, frequency_penalty=1.0, no_repeat_ngram_size=2, encoder_no_repeat_ngram_size=2),
        [1, 2, 3],
        [4, 5],
    )
    before = made.shaped(lively(0)).scores_N
    twin = made.fork()
    for id in (4, 9, 9):
        twin.push(id)
    torch.testing.assert_close(made.shaped(lively(0)).scores_N, before)
    assert not torch.equal(twin.shaped(lively(0)).scores_N, before)


# --- log-probabilities ---


def test_logprobs_are_the_models_own() -> None:
    made = sampler(Sampling(temperature=0.5, top_k=2, logit_bias={0: 50.0}, logprobs=3), [], [])
    pick = made.choose(lively(0))
    expected = lively(0).log_softmax(dim=-1)
    assert pick.id == 0
    assert pick.logprob is not None
    assert pick.logprob.logprob == pytest.approx(float(expected[0]))
    assert [id for id, _ in pick.logprob.top] == expected.argsort(descending=True)[:3].tolist()
    assert [value for _, value in pick.logprob.top] == pytest.approx(expected.sort(descending=True).values[:3].tolist())


def test_logprobs_are_made_only_where_they_are_needed() -> None:
    assert Sampler(Sampling(temperature=1.0), []).choose(lively(0)).logprob is None
    ranked = Sampler(Sampling(temperature=1.0, n=1, best_of=3), []).choose(lively(0)).logprob
    assert ranked is not None
    assert ranked.top == ()
    assert logprob_of(lively(0), 3, 500).top[-1][1] <= logprob_of(lively(0), 3, 2).top[-1][1]


# --- models that are broken, settings that leave nothing ---


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(broken: float) -> None:
    logits = lively(0)
    logits[7] = broken
    for temperature in (0.0, 1.0):
        with pytest.raises(PlumeError, match="not a number"):
            Sampler(Sampling(temperature=temperature), []).choose(logits)
    with pytest.raises(PlumeError, match="not a number"):
        check_logits(torch.stack([lively(1), logits]))
    check_logits(torch.stack([lively(1), lively(0)]))


def test_settings_that_exclude_every_token_are_named() -> None:
    made = sampler(Sampling(no_repeat_ngram_size=1), [], range(V))
    with pytest.raises(PlumeError, match="no_repeat_ngram_size excludes every token"):
        made.choose(lively(0))
    allowed = torch.zeros(V, dtype=torch.bool)
    allowed[4] = True
    with pytest.raises(PlumeError, match="every token that the constraint allows"):
        sampler(Sampling(no_repeat_ngram_size=1), [], [4]).choose(lively(0), allowed)
