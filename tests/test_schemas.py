"""Answers held to a JSON Schema validate, at any temperature and any limit, or the schema is refused by name."""

import json
from collections.abc import Iterable
from functools import reduce
from typing import Any

import jsonschema_rs
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, trainers

from plume.errors import UserError
from plume.generation.constrain import json_schema
from plume.generation.engine import Engine
from plume.models import gpt
from plume.models.bundle import Bundle, bundle
from plume.text.tokenizer import TextTokenizer, train_tokenizer
from plume.types import Sampling
from schema_cases import Case, Cutter, Speaker, accepts, corpus, judge, shuffled, spellings, text_of

LIMITS = (0, 1, 3, 10)
TAKEN = tuple(case for case in corpus() if case.refused is None)
REFUSED = tuple(case for case in corpus() if case.refused is not None)
SOME = tuple(shuffled(TAKEN)[:25])
names = pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)


def texts() -> list[str]:
    return [json.dumps(instance, ensure_ascii=False) for case in corpus() for instance in case.valid]


def byte_fallback(texts: Iterable[str]) -> TextTokenizer:
    """A tokenizer as Llama's: 512 tokens, a byte each for what has none, and a space put before every text."""
    space = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    learnt = Backend(models.BPE())
    learnt.normalizer = normalizers.Sequence(space)
    learnt.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=253, limit_alphabet=90, show_progress=False))
    value = json.loads(learnt.to_str())
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *value["model"]["vocab"]]
    value["model"] |= {"vocab": {token: id for id, token in enumerate(tokens)}, "byte_fallback": True}
    value["model"] |= {"unk_token": "<unk>", "fuse_unk": True}
    backend = Backend.from_str(json.dumps(value))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return TextTokenizer(backend, named)


@pytest.fixture(scope="module", params=["byte-level", "byte-fallback"])
def asked(request: pytest.FixtureRequest) -> Bundle:
    """A tiny untrained model over either kind of tokenizer."""
    tokenizer = train_tokenizer("bpe", texts(), 600) if request.param == "byte-level" else byte_fallback(texts())
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "dropout": 0.0, "max_length": 256}
    return bundle(gpt.build({"vocab_size": tokenizer.vocab_size, **sizes}), tokenizer, "raw", 64)


def test_the_tokenizers_are_what_they_are_called(asked: Bundle) -> None:
    tokenizer = asked.tokenizer
    assert tokenizer.vocab_size in (512, 600)
    assert tokenizer.prepends_space is (tokenizer.vocab_size == 512)
    for text in texts():
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert text_of(tokenizer, Cutter(tokenizer)(text.encode())) == text


def test_the_corpus_says_the_truth() -> None:
    cases = corpus()
    assert len(cases) >= 150
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        try:
            valid = judge(case.schema)
        except (ValueError, jsonschema_rs.ReferencingError):
            assert case.refused is not None, case.name
            continue
        verdicts = [valid(text.decode()) for instance in case.valid for text in spellings(instance)]
        assert all(verdicts), case.name
        assert not any(valid(text.decode()) for instance in case.invalid for text in spellings(instance)), case.name
        assert case.valid or case.refused is not None, case.name


@names
def test_what_cannot_be_enforced_is_refused_by_name_and_place(asked: Bundle, case: Case) -> None:
    with pytest.raises(UserError) as refusal:
        json_schema(case.schema, asked)
    assert (case.refused or "") in str(refusal.value)
    assert refusal.value.hint
    if case.refused:
        assert at(case.schema, case.refused) is not None


def at(schema: Any, pointer: str) -> Any:
    """The part of a schema that a JSON pointer leads to; KeyError or IndexError where it leads nowhere."""
    keys = (key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:])
    return reduce(lambda part, key: part[int(key) if isinstance(part, list) else key], keys, schema)


def test_instances_are_judged_as_by_the_independent_library(asked: Bundle) -> None:
    cut = Cutter(asked.tokenizer)
    for case in TAKEN:
        grammar = json_schema(case.schema, asked)
        for instance in case.valid:
            assert any(accepts(grammar, cut(text)) for text in spellings(instance)), (case.name, instance)
        for instance in case.invalid:
            assert not any(accepts(grammar, cut(text)) for text in spellings(instance)), (case.name, instance)


def test_the_shortest_answer_is_an_answer_and_has_the_length_it_is_said_to_have(asked: Bundle) -> None:
    for case in TAKEN:
        grammar = json_schema(case.schema, asked)
        ids = grammar.start().shortest_end()
        assert len(ids) == grammar.shortest, case.name
        assert accepts(grammar, ids), case.name
        assert judge(case.schema)(text_of(asked.tokenizer, ids)), case.name


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_answers_validate_at_every_limit(asked: Bundle, temperature: float) -> None:
    speaker = Speaker(asked.model.vocab_size, asked.stop_ids)
    for number, case in enumerate(SOME):
        grammar, valid = json_schema(case.schema, asked), judge(case.schema)
        for room in (*(grammar.shortest + more for more in LIMITS), max(64, grammar.shortest)):
            ids = speaker.answer(grammar, room, temperature, number)
            assert len(ids) <= room, case.name
            text = text_of(asked.tokenizer, ids)
            assert valid(text), (case.name, room, text)
            assert grammar.valid(text), (case.name, room, text)


def test_where_there_is_room_answers_are_the_speakers_own(asked: Bundle) -> None:
    speaker = Speaker(asked.model.vocab_size, asked.stop_ids)
    grammar = json_schema({"type": "array", "items": {"enum": ["mer", "vent", "sel"]}, "minItems": 4}, asked)
    answers = {text_of(asked.tokenizer, speaker.answer(grammar, 64, 1.0, seed)) for seed in range(20)}
    assert len(answers) > 10
    assert any(len(json.loads(answer)) > 4 for answer in answers)


def test_the_engine_keeps_the_promise_with_a_real_model(asked: Bundle) -> None:
    engine, prompt = Engine(asked), asked.tokenizer.encode("Où ?")
    for number, case in enumerate(SOME[:6]):
        grammar, valid = json_schema(case.schema, asked), judge(case.schema)
        for room in (grammar.shortest, grammar.shortest + 3, grammar.shortest + 40):
            for temperature in (0.0, 1.5):
                sampling = Sampling(max_new_tokens=room, temperature=temperature, seed=number if temperature else 0)
                [answer] = engine.generate([prompt], sampling, grammar=grammar)
                assert valid(answer.text), (case.name, room, temperature, answer)
                assert answer.finish == "stop"
                assert len(answer.ids) <= room
        if grammar.shortest > 1:
            with pytest.raises(UserError, match=str(grammar.shortest)):
                engine.generate([prompt], Sampling(max_new_tokens=grammar.shortest - 1), grammar=grammar)
