"""Generation settings as people write them: read, bounded, refused where they contradict each other."""

import math
import re
from pathlib import Path

import pytest

from plume.errors import UserError
from plume.generation.settings import check_constrained, check_for, make_sampling, warnings_of
from plume.types import Sampling

V = 60


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"top_k": 5}, "top_k has no effect at temperature 0"),
        ({"seed": 5}, "has no effect at temperature 0"),
        ({"seed": 0}, "has no effect at temperature 0"),
        ({"min_p": 0.1}, "has no effect at temperature 0"),
        ({"typical_p": 0.1}, "has no effect at temperature 0"),
        ({"temperature": -1}, "must be"),
        ({"temperature": math.inf}, "must be"),
        ({"temperature": True}, "must be"),
        ({"temperature": 1, "top_p": 0}, "must be"),
        ({"temperature": 1, "typical_p": 0}, "must be"),
        ({"temperature": 1, "min_p": 1.1}, "must be"),
        ({"max_new_tokens": 0}, "must be"),
        ({"max_new_tokens": "many"}, "must be"),
        ({"stop": ""}, "must be"),
        ({"stop": ["END", ""]}, "must be"),
        ({"stop_token_ids": [-1]}, "must be"),
        ({"stop_token_ids": "END"}, "must be"),
        ({"presence_penalty": 2.1}, "from -2 to 2"),
        ({"frequency_penalty": -2.1}, "from -2 to 2"),
        ({"repetition_penalty": 0}, "from 0.01 to 100"),
        ({"repetition_penalty": 1e300}, "from 0.01 to 100"),
        ({"temperature": 1e-300}, "or 1e-06 and more"),
        ({"logit_bias": {5: 101}}, "from -100 to 100"),
        ({"logit_bias": {"phare": 1}}, "token ids"),
        ({"logit_bias": [5]}, "token ids"),
        ({"logprobs": 21}, "from 0 to 20"),
        ({"logprobs": True}, "from 0 to 20"),
        ({"encoder_no_repeat_ngram_size": 1.5}, "must be"),
        ({"no_repeat_ngram_size": -1}, "must be"),
        ({"num_beams": 0}, "must be"),
        ({"early_stopping": "always", "num_beams": 2}, "true, false or never"),
        ({"early_stopping": True}, "no effect without beams"),
        ({"length_penalty": 2}, "no effect without beams"),
        ({"n": 2}, "n=2 at temperature 0 gives the same answer 2 times"),
        ({"n": 2, "temperature": 1, "top_k": 1}, "n=2 with top_k=1 gives the same answer"),
        ({"best_of": 2}, "best_of=2 at temperature 0"),
        ({"best_of": 2, "n": 3, "temperature": 1}, "best_of=2 and n=3"),
        ({"num_beams": 4, "temperature": 0.5}, "num_beams=4 and temperature=0.5"),
        ({"num_beams": 4, "n": 5}, "n=5 and num_beams=4"),
        ({"num_beams": 4, "best_of": 4}, "best_of and num_beams=4"),
        ({"num_beams": 4, "top_k": 4}, "top_k has no effect at temperature 0"),
        ({"num_beams": 4, "prompt_lookup_num_tokens": 4}, "prompt_lookup_num_tokens and num_beams=4"),
        ({"n": 2, "temperature": 1, "prompt_lookup_num_tokens": 4}, "guesses for one answer"),
        ({"num_beams": 4, "logprobs": 1}, "logprobs and num_beams=4"),
        ({"temprature": 1}, "unknown key"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_sampling(settings, Sampling())


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        ({"stop": "FIN"}, Sampling(stop=("FIN",))),
        ({"stop": ["FIN", 7]}, Sampling(stop=("FIN", "7"))),
        ({"stop_token_ids": 3}, Sampling(stop_token_ids=(3,))),
        ({"logit_bias": {"5": -1}}, Sampling(logit_bias={5: -1})),
        ({"temperature": 0, "top_k": 0, "top_p": 1.0}, Sampling()),
        ({"num_beams": 3, "n": 3, "early_stopping": "never"}, Sampling(num_beams=3, n=3, early_stopping="never")),
        ({"temperature": 1, "n": 2, "best_of": 4}, Sampling(temperature=1, n=2, best_of=4)),
    ],
)
def test_settings_are_read_as_people_write_them(settings: dict[str, object], made: Sampling) -> None:
    assert make_sampling(settings, Sampling()) == made


def test_an_unknown_setting_offers_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        make_sampling({"temprature": 1}, Sampling())
    assert caught.value.hint == "did you mean temperature?"


@pytest.mark.parametrize("sampling", [Sampling(logit_bias={V: 1.0}), Sampling(stop_token_ids=(V,))])
def test_ids_beyond_the_vocabulary_are_refused(sampling: Sampling) -> None:
    with pytest.raises(UserError, match=f"there is no token {V}"):
        check_for(sampling, V)
    check_for(sampling, V + 1)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(no_repeat_ngram_size=3),
        Sampling(encoder_no_repeat_ngram_size=3),
        Sampling(logit_bias={3: -100}),
        Sampling(stop=('"',)),
        Sampling(stop_token_ids=(3,)),
    ],
)
def test_what_makes_a_required_shape_impossible_is_refused_with_one(sampling: Sampling) -> None:
    with pytest.raises(UserError, match="required shape"):
        check_constrained(sampling)
    check_constrained(Sampling(repetition_penalty=1.1, logit_bias={3: -10}))


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        (Sampling(temperature=1.5), "nonsense"),
        (Sampling(temperature=1.0, top_k=1), "top_k=1"),
        (Sampling(repetition_penalty=0.9), "rewards repetition"),
        (Sampling(no_repeat_ngram_size=1), "come once"),
        (Sampling(no_repeat_ngram_size=9, max_new_tokens=9), "no effect"),
        (Sampling(prompt_lookup_num_tokens=9, max_new_tokens=9), "further than"),
    ],
)
def test_settings_that_surprise_are_warned_about(sampling: Sampling, said: str) -> None:
    (sentence,) = warnings_of(sampling)
    assert said in sentence


def test_ordinary_settings_are_not_warned_about() -> None:
    for sampling in (
        Sampling(),
        Sampling(temperature=0.7),
        Sampling(temperature=1.5, min_p=0.05),
        Sampling(num_beams=4),
    ):
        assert warnings_of(sampling) == []


def test_every_setting_is_explained_with_an_example() -> None:
    page = (Path(__file__).parents[1] / "docs" / "generation.md").read_text(encoding="utf-8")
    for name in Sampling.__dataclass_fields__:
        assert f"`{name}`" in page or f"`{name}=" in page, name
        assert re.search(rf"--set '?{name}=", page), name
