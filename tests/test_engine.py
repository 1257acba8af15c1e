"""Continuous batching: who joins, leaves, cancels or fails changes nobody else's answer, and leaves nothing behind."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from plume.errors import PlumeError, UserError
from plume.generation import constrain
from plume.generation.batch import Batch
from plume.generation.engine import Engine
from plume.generation.reply import Request
from plume.models import bigram, gpt, gru, hf
from plume.models.bundle import Bundle, bundle
from plume.text.template import TEMPLATES
from plume.text.tokenizer import train_tokenizer
from plume.types import Chunk, LanguageModel, Sampling

TEXTS = ["Où est le phare ? « Au large », dit-elle. 漢字 🦉 L’été.", "Where is the boat? In the harbour."]
CONTEXT = 96
TOKENIZER = train_tokenizer("bpe", TEXTS, 400)
SIZES = {
    "vocab_size": TOKENIZER.vocab_size,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "dropout": 0.0,
    "max_length": CONTEXT,
}


def llama() -> LanguageModel:
    sizes: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    config = LlamaConfig(
        vocab_size=TOKENIZER.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=TOKENIZER.eos_id,
        pad_token_id=TOKENIZER.pad_id,
        **sizes,
    )
    return hf.HFModel(AutoModelForCausalLM.from_config(config))


KINDS: dict[str, Callable[[], LanguageModel]] = {
    "bigram": lambda: bigram.build(SIZES),
    "gru": lambda: gru.build(SIZES),
    "gpt": lambda: gpt.build(SIZES),
    "hf": llama,
}
PROMPTS = [
    tuple(random.Random(seed).choices(range(20, TOKENIZER.vocab_size), k=length))
    for seed, length in enumerate((3, 40, 1, 17, 64, 8, 2, 33, 5, 26))
]


def made(kind: str) -> Bundle:
    torch.manual_seed(1)
    model = KINDS[kind]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return bundle(model, TOKENIZER, TEMPLATES["chat"], 20)


@pytest.fixture(scope="module", params=list(KINDS))
def each(request: pytest.FixtureRequest) -> Bundle:
    return made(request.param)


@pytest.fixture(scope="module")
def asked() -> Bundle:
    return made("gpt")


def batch_of(made: Bundle, rows: int = 8, **sizes: int) -> Batch:
    return Batch(made, rows=rows, **{"cache_nbytes": 2**30, "prefix_nbytes": 0, **sizes})


def drained(batch: Batch, said: dict[int, list[Chunk]] | None = None) -> dict[int, list[Chunk]]:
    """Every chunk of every request until nothing is left to do."""
    said = {} if said is None else said
    while batch.waiting or batch.running:
        for number, event in batch.step():
            assert isinstance(event, Chunk)
            said.setdefault(number, []).append(event)
    return said


def ids_of(chunks: Sequence[Chunk]) -> list[int]:
    return [id for chunk in chunks for id in chunk.ids]


def alone(made: Bundle, request: Request) -> list[int]:
    batch = batch_of(made)
    number = batch.submit(request)
    return ids_of(drained(batch)[number])


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=12), Sampling(max_new_tokens=12, temperature=0.9)])
def test_joining_and_leaving_change_no_answer(each: Bundle, sampling: Sampling) -> None:
    requests = [
        Request(prompt, replace(sampling, seed=seed, max_new_tokens=3 + seed)) for seed, prompt in enumerate(PROMPTS)
    ]
    batch = batch_of(each, rows=4)
    said: dict[int, list[Chunk]] = {}
    numbers = []
    for request in requests:  # each joins while others are in the middle of theirs
        numbers.append(batch.submit(request))
        for number, event in batch.step():
            assert isinstance(event, Chunk)
            said.setdefault(number, []).append(event)
    drained(batch, said)
    for number, request in zip(numbers, requests, strict=True):
        assert ids_of(said[number]) == alone(each, request)


def test_a_long_prompt_is_read_in_stretches_between_other_answers(asked: Bundle, monkeypatch: Any) -> None:
    monkeypatch.setattr("plume.generation.batch._READ", 16)
    long = Request(PROMPTS[4], Sampling(max_new_tokens=4))
    batch = batch_of(asked)
    short = batch.submit(Request(PROMPTS[0], Sampling(max_new_tokens=20)))
    batch.step()
    late = batch.submit(long)
    before = 0
    said: list[Chunk] = []
    while not said:
        events = batch.step()
        said = [event for number, event in events if number == late and isinstance(event, Chunk)]
        before += any(number == short for number, _ in events) and not said
    assert before == 64 // 16 - 1
    assert said[0].ids[0] == alone(asked, long)[0]


def test_cancelling_frees_everything_at_once(each: Bundle) -> None:
    chance = random.Random(0)
    batch = batch_of(each, rows=6)
    going: list[int] = []
    for _ in range(1000):
        going.append(batch.submit(Request(chance.choice(PROMPTS), Sampling(max_new_tokens=20))))
        for _ in range(chance.randrange(2)):
            batch.step()
        if len(going) > 4:
            number = going.pop(chance.randrange(len(going)))
            batch.cancel(number)
            assert number not in batch
        going = [number for number in going if number in batch]
        assert batch.running <= 6
    for number in going:
        batch.cancel(number)
    assert (batch.running, batch.waiting, batch.nbytes) == (0, 0, 0)


def test_closing_a_stream_cancels_it(asked: Bundle) -> None:
    engine = Engine(asked)
    stream = engine.stream(PROMPTS[0], Sampling(max_new_tokens=50))
    next(stream)
    assert engine.running == 1
    stream.close()
    assert engine.running == 0


class Poisoned(torch.nn.Module):
    """A model whose output for one token is not a number."""

    def __init__(self, inner: Any, poison: int) -> None:
        super().__init__()
        self.inner, self.poison = inner, poison

    def __getattr__(self, name: str) -> Any:
        return getattr(super().__getattr__("inner"), name) if name != "inner" else super().__getattr__("inner")

    def forward(self, ids_BT: torch.Tensor, *rest: Any) -> Any:
        hidden, state = self.inner(ids_BT, *rest)
        return hidden.masked_fill((ids_BT == self.poison)[..., None], float("nan")), state


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_output_that_is_no_number_ends_that_answer_alone(asked: Bundle, temperature: float) -> None:
    poisoned = replace(asked, model=Poisoned(asked.model, poison=7))
    batch = batch_of(poisoned)
    sampling = Sampling(max_new_tokens=6, temperature=temperature, logit_bias={7: -100.0})
    healthy = batch.submit(Request(PROMPTS[1], sampling))
    sick = batch.submit(Request((*PROMPTS[0], 7), sampling))
    events = []
    while batch.waiting or batch.running:
        events += batch.step()
    errors = {number: event for number, event in events if isinstance(event, PlumeError)}
    assert list(errors) == [sick]
    assert "not a number" in errors[sick].message
    whole = [event for number, event in events if number == healthy and isinstance(event, Chunk)]
    assert len(whole) == 6
    assert batch.nbytes == 0


def test_a_failing_model_ends_every_stream_with_an_error(asked: Bundle, monkeypatch: Any) -> None:
    engine = Engine(asked)
    first = engine.stream(PROMPTS[0], Sampling(max_new_tokens=50))
    second = engine.stream(PROMPTS[1], Sampling(max_new_tokens=50))
    next(first), next(second)

    def fails(*_: Any) -> None:
        raise MemoryError("no memory left")

    monkeypatch.setattr(type(asked.model), "forward", fails)
    with pytest.raises(MemoryError):
        list(first)
    with pytest.raises(PlumeError, match="no memory left"):
        list(second)
    assert engine.running == 0


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request((), Sampling()), "empty"),
        (Request(tuple(range(30, 30 + CONTEXT)), Sampling()), "context of 96"),
        (Request(PROMPTS[0], Sampling(temperature=1.0, n=99)), "^n=99: at most 8 answers are decoded together$"),
        (Request(PROMPTS[0], Sampling(temperature=1.0, best_of=9)), "^best_of=9: at most 8 answers"),
        (Request(PROMPTS[0], Sampling(num_beams=9)), "^num_beams=9: at most 8 answers"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_it_begins(asked: Bundle, request_: Request, said: str) -> None:
    batch = batch_of(asked)
    with pytest.raises(UserError, match=said):
        batch.submit(request_)
    assert (batch.waiting, batch.running) == (0, 0)


@pytest.mark.parametrize("id", [-1, TOKENIZER.vocab_size])
def test_an_unknown_token_disturbs_nobody_else(asked: Bundle, id: int) -> None:
    engine = Engine(asked)
    running = engine.stream(PROMPTS[0], Sampling(max_new_tokens=6))
    next(running)
    with pytest.raises(UserError, match=f"no token {id}"):
        list(engine.stream((*PROMPTS[0], id), Sampling()))
    assert len(list(running)) == 5


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        (Sampling(temperature=-1.0), "temperature=-1.0: must be"),
        (Sampling(n=3), "n=3 at temperature 0"),
        (Sampling(top_k=5), "top_k has no effect"),
        (Sampling(num_beams=3, temperature=1.0), "temperature=1 contradict"),
        (Sampling(num_beams=3, logprobs=2), "logprobs and num_beams=3"),
        (Sampling(stop="Au"), "stop='Au': must be"),  # type: ignore[arg-type]
        (Sampling(max_new_tokens=0), "max_new_tokens=0: must be"),
    ],
)
def test_contradictions_are_refused_in_python_too(asked: Bundle, sampling: Sampling, said: str) -> None:
    with pytest.raises(UserError, match=said):
        list(Engine(asked).stream(PROMPTS[0], sampling))


class Silent:
    """Logits of minus infinity for all tokens but some."""

    def __init__(self, head: Callable[[torch.Tensor], torch.Tensor], spoken: Sequence[int]) -> None:
        self.head, self.spoken = head, list(spoken)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self.head(hidden)
        silent = torch.full_like(logits, float("-inf"))
        silent[..., self.spoken] = logits[..., self.spoken]
        return silent


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(logit_bias={40: 5.0}), Sampling(num_beams=2)])
def test_a_model_that_excludes_all_that_a_constraint_allows_is_named(monkeypatch: Any, sampling: Sampling) -> None:
    asked = made("gpt")
    engine, grammar = Engine(asked), constrain.choice(["boat"], asked)
    head = asked.model.head
    monkeypatch.setattr(asked.model, "head", Silent(head, TOKENIZER.encode("漢")))
    said = "no beam can go on" if sampling.num_beams > 1 else "^the model gives every token that the constraint allows"
    with pytest.raises(PlumeError, match=said):
        list(engine.stream(PROMPTS[0], sampling, grammar=grammar))
    assert engine.running == 0
    monkeypatch.setattr(asked.model, "head", head)
    assert "".join(chunk.text for chunk in engine.stream(PROMPTS[0], Sampling(), grammar=grammar)) == "boat"


@pytest.mark.parametrize("sampling", [Sampling(logprobs=0), Sampling(temperature=1.0), Sampling(num_beams=2)])
def test_at_a_limit_the_ending_comes_however_unlikely_it_is(monkeypatch: Any, sampling: Sampling) -> None:
    asked = made("gpt")
    grammar = constrain.json_schema({"type": "array", "items": {"type": "null"}}, asked)
    monkeypatch.setattr(asked.model, "head", Silent(asked.model.head, [*TOKENIZER.encode("["), *TOKENIZER.encode("n")]))
    chunks = list(Engine(asked).stream(PROMPTS[0], replace(sampling, max_new_tokens=2), grammar=grammar))
    assert "".join(chunk.text for chunk in chunks) == "[]"


def test_a_stream_collected_in_the_middle_of_a_step_is_cancelled(asked: Bundle, monkeypatch: Any) -> None:
    engine = Engine(asked)
    dropped = [engine.stream(PROMPTS[1], Sampling(max_new_tokens=50))]
    next(dropped[0])
    step = engine._batch.step

    def collecting() -> Any:
        dropped.clear()  # as the garbage collector may, in whichever thread decodes
        return step()

    monkeypatch.setattr(engine._batch, "step", collecting)
    done: list[Chunk] = []
    thread = threading.Thread(
        target=lambda: done.extend(engine.stream(PROMPTS[0], Sampling(max_new_tokens=3))), daemon=True
    )
    thread.start()
    thread.join(timeout=20)
    assert len(done) == 3
    assert engine.running == 0


def test_memory_is_refused_with_numbers_and_never_exceeded(asked: Bundle) -> None:
    token = asked.model.state_nbytes(CONTEXT)
    batch = batch_of(asked, cache_nbytes=3 * token)
    with pytest.raises(UserError, match="MiB"):
        batch.submit(Request(PROMPTS[0], Sampling(max_new_tokens=CONTEXT, temperature=1.0, n=4)))
    for prompt in PROMPTS:
        batch.submit(Request(prompt, Sampling(max_new_tokens=CONTEXT)))
    most = 0
    while batch.waiting or batch.running:
        batch.step()
        most = max(most, batch.running)
        assert batch.nbytes <= 3 * token
    assert most == 3


def test_ten_thousand_requests_wait_their_turn() -> None:
    batch = batch_of(made("bigram"), rows=64)
    numbers = [batch.submit(Request(PROMPTS[at % len(PROMPTS)], Sampling(max_new_tokens=2))) for at in range(10_000)]
    said = drained(batch)
    assert sorted(said) == numbers
    assert all(said[number][-1].finish for number in numbers)


# --- several answers ---


def test_answers_to_one_prompt_are_those_of_its_seeds(each: Bundle) -> None:
    sampling = Sampling(max_new_tokens=8, temperature=1.0, seed=4, n=3)
    batch = batch_of(each)
    number = batch.submit(Request(PROMPTS[3], sampling))
    said = drained(batch)[number]
    for choice in range(3):
        own = ids_of([chunk for chunk in said if chunk.choice == choice])
        assert own == alone(each, Request(PROMPTS[3], replace(sampling, n=1, seed=4 + choice)))


def test_the_best_of_several_is_the_likeliest(asked: Bundle) -> None:
    sampling = Sampling(max_new_tokens=8, temperature=1.0, seed=4, logprobs=0)
    [best] = Engine(asked).generate([PROMPTS[3]], replace(sampling, best_of=5))
    singles = [Engine(asked).generate([PROMPTS[3]], replace(sampling, seed=4 + choice))[0] for choice in range(5)]
    means = [sum(one.logprob for one in single.logprobs) / len(single.logprobs) for single in singles]
    assert best.ids == singles[means.index(max(means))].ids


# --- prefixes ---


def counted(made: Bundle, monkeypatch: Any) -> list[int]:
    """Tokens of every call of the model, as they come."""
    seen: list[int] = []
    kind: Any = type(made.model)
    forward = kind.forward

    def counting(self: Any, ids_BT: torch.Tensor, *rest: Any, **options: Any) -> Any:
        seen.append(ids_BT.shape[1])
        return forward(self, ids_BT, *rest, **options)

    monkeypatch.setattr(kind, "forward", counting)
    return seen


def test_a_shared_persona_is_read_once(each: Bundle, monkeypatch: Any) -> None:
    persona = PROMPTS[1]
    requests = [Request((*persona, *PROMPTS[5], id), Sampling(max_new_tokens=5)) for id in (30, 40, 50)]
    expected = [alone(each, request) for request in requests]
    seen = counted(each, monkeypatch)
    batch = batch_of(each, prefix_nbytes=2**20)
    for request, ids in zip(requests, expected, strict=True):
        seen.clear()
        number = batch.submit(request)
        assert ids_of(drained(batch)[number]) == ids
    assert seen[0] == 1  # all but the last token was known
    if not isinstance(each.model, bigram.Bigram):
        assert 0 < batch.nbytes <= 2**20


def test_a_prompt_is_forgotten_at_its_time_however_often_it_is_used(asked: Bundle, monkeypatch: Any) -> None:
    now = 0.0
    monkeypatch.setattr("plume.generation.prefix.time.monotonic", lambda: now)
    batch = batch_of(asked, prefix_nbytes=2**20)

    def found(id: int) -> int:
        batch.submit(Request((*PROMPTS[1], id), Sampling(max_new_tokens=2)))
        drained(batch)
        return batch.prefix_hits

    assert found(30) == 0
    now = 10.0
    batch.forget_prompts(0.0)
    known = found(40)
    assert known == len(PROMPTS[1])
    batch.forget_prompts(5.0)
    assert batch.nbytes == 0
    assert found(50) == known


def test_nothing_is_shared_beyond_a_scope(asked: Bundle, monkeypatch: Any) -> None:
    seen = counted(asked, monkeypatch)
    batch = batch_of(asked, prefix_nbytes=2**20)
    read = []
    for scope in ("ada", "bob", "ada"):
        seen.clear()
        batch.submit(Request(PROMPTS[1], Sampling(max_new_tokens=2), scope=scope))
        drained(batch)
        read.append(seen[0])
    assert read == [40, 40, 1]


def test_kept_prompts_stay_within_their_bound(asked: Bundle) -> None:
    bound = 3 * asked.model.state_nbytes(64)
    batch = batch_of(asked, prefix_nbytes=bound)
    for seed in range(12):
        prompt = tuple(random.Random(seed).choices(range(20, 300), k=60))
        batch.submit(Request(prompt, Sampling(max_new_tokens=2)))
        drained(batch)
        assert 0 < batch.nbytes <= bound


# --- the public door ---


def test_threads_share_an_engine(asked: Bundle) -> None:
    engine = Engine(asked)
    answers: dict[int, list[int]] = {}

    def ask(at: int) -> None:
        answers[at] = ids_of(list(engine.stream(PROMPTS[at], Sampling(max_new_tokens=5 + at))))

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert answers == {
        at: alone(asked, Request(prompt, Sampling(max_new_tokens=5 + at))) for at, prompt in enumerate(PROMPTS)
    }


def test_text_goes_on_beyond_the_context(asked: Bundle) -> None:
    def by_hand() -> Iterator[int]:
        read = list(PROMPTS[4])
        while True:
            with torch.no_grad():
                hidden, _ = asked.model(torch.tensor([read]))
            read.append(int(asked.model.head(hidden[0, -1]).argmax()))
            yield read[-1]
            if len(read) >= CONTEXT:
                read = read[-(CONTEXT // 2) :]

    found = by_hand()
    expected = [next(found) for _ in range(100)]
    quiet = replace(asked, stop_ids=frozenset())
    chunks = Engine(quiet).stream(PROMPTS[4], Sampling(max_new_tokens=100), reply=False)
    assert ids_of(list(chunks)) == expected
