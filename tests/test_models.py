"""One contract for every architecture: a row in ROWS is all that a new one needs here.

Shape suffixes: B batch, T time, V vocabulary.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from plume.errors import UserError
from plume.models import bigram, gpt, gru, hf
from plume.models.catalog import build_model, load_model
from plume.models.prepacked import Prepacked
from plume.types import LanguageModel

VOCABULARY, CONTEXT = 50, 64
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "dropout": 0.0,
    "max_length": CONTEXT,
}
IDS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    **IDS,
}


def from_config(config: PreTrainedConfig) -> LanguageModel:
    return hf.HFModel(AutoModelForCausalLM.from_config(config))


def lively(model: LanguageModel) -> LanguageModel:
    """Weights of a size at which every part of the model shows in the logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model


def local_attention() -> LanguageModel:
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "window_size": 3,
    }
    kinds = [[["global", "local"], 1]]
    return from_config(GPTNeoConfig(**sizes, max_position_embeddings=CONTEXT, attention_types=kinds, **IDS))


ROWS: dict[str, Callable[[], LanguageModel]] = {
    "bigram": lambda: bigram.build(SIZES),
    "gru": lambda: gru.build(SIZES),
    "gru with a window, tied, clustered": lambda: gru.GRU(
        gru.GRUConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            attention_window=8,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            cutoffs=[20, 35],
        )
    ),
    "gpt": lambda: gpt.build(SIZES),
    "gpt without QK-norm, untied, grouped": lambda: gpt.GPT(
        gpt.GPTConfig(VOCABULARY, 32, 64, 2, 4, 2, 8, CONTEXT, qk_norm=False, tie_word_embeddings=False)
    ),
    "hf llama": lambda: from_config(LlamaConfig(**SMALL, num_key_value_heads=2)),
    "hf qwen3": lambda: from_config(Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8)),
    "hf mistral, sliding window": lambda: from_config(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=4)),
    "hf qwen3, every other layer with a window": lambda: from_config(
        Qwen3Config(
            **SMALL,
            num_key_value_heads=2,
            head_dim=8,
            use_sliding_window=True,
            sliding_window=4,
            layer_types=["full_attention", "sliding_attention"],
        )
    ),
    "hf phi": lambda: from_config(PhiConfig(**SMALL)),
    "hf gpt2": lambda: from_config(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=CONTEXT,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **IDS,
        )
    ),
    "hf gpt_neo": lambda: from_config(
        GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            max_position_embeddings=CONTEXT,
            attention_types=[[["global"], 2]],
            **IDS,
        )
    ),
    "hf gpt_neo, local attention": local_attention,
}
EVERY = pytest.mark.parametrize("build", list(ROWS.values()), ids=list(ROWS))


def made(build: Callable[[], LanguageModel]) -> LanguageModel:
    torch.manual_seed(0)
    model = lively(build())
    model.train(False)
    return model


def some_ids(rows: int, length: int) -> Tensor:
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def logits(model: LanguageModel, ids_BT: Tensor, *rest: Any) -> Tensor:
    with torch.no_grad():
        hidden_BTC, _ = model(ids_BT, *rest)
    return model.head(hidden_BTC)


@EVERY
def test_shapes_and_sizes(build: Callable[[], LanguageModel]) -> None:
    model = made(build)
    assert logits(model, some_ids(3, 7)).shape == (3, 7, VOCABULARY)
    assert (model.vocab_size, model.context_length) == (VOCABULARY, CONTEXT)


@EVERY
def test_reading_in_pieces_equals_reading_at_once(build: Callable[[], LanguageModel]) -> None:
    model = made(build)
    ids = some_ids(2, 12)
    whole = logits(model, ids)
    state, pieces = None, []
    with torch.no_grad():
        for piece in (ids[:, :5], ids[:, 5:6], ids[:, 6:7], ids[:, 7:]):
            hidden, state = model(piece, state)
            pieces.append(model.head(hidden))
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-5)


@EVERY
def test_no_token_sees_what_comes_after_it(build: Callable[[], LanguageModel]) -> None:
    model = made(build)
    ids = some_ids(1, 10)
    other = ids.clone()
    other[:, 6:] = (other[:, 6:] + 5 - 3) % (VOCABULARY - 3) + 3
    before, after = logits(model, ids), logits(model, other)
    torch.testing.assert_close(before[:, :6], after[:, :6], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@EVERY
def test_right_padding_and_ragged_continuation_change_nothing(build: Callable[[], LanguageModel]) -> None:
    model = made(build)
    ids, lengths = some_ids(3, 12), [3, 7, 5]
    padded = ids[:, :7].clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = 0
    following = torch.stack([ids[row, length : length + 2] for row, length in enumerate(lengths)])
    with torch.no_grad():
        hidden, state = model(padded, None, torch.tensor(lengths))
        first = model.head(hidden)
        hidden, state = model(following, state)
        second = model.head(hidden)
    for row, length in enumerate(lengths):
        alone = logits(model, ids[row : row + 1])[0]
        torch.testing.assert_close(first[row, :length], alone[:length], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(second[row], alone[length : length + 2], atol=1e-5, rtol=1e-5)


PACKED = ([7, 5], [4, 1, 1, 3, 2])  # lengths of the documents in each row


def packed(documents: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, lengths and segments of the rows of PACKED, padded."""
    remaining = iter(documents)
    lengths = torch.tensor([sum(row) for row in PACKED])
    ids = torch.zeros(len(PACKED), int(lengths.max()), dtype=torch.long)
    segments = torch.full_like(ids, -1)
    for row, sizes in enumerate(PACKED):
        ids[row, : sum(sizes)] = torch.cat([next(remaining) for _ in sizes])
        segments[row, : sum(sizes)] = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return ids, lengths, segments


@EVERY
@pytest.mark.parametrize("training", [False, True])
def test_packed_documents_are_read_as_if_alone(build: Callable[[], LanguageModel], training: bool) -> None:
    model = made(build)
    model.train(training)
    documents = [some_ids(1, 20)[0, -size:] for row in PACKED for size in row]
    ids, lengths, segments = packed(documents)
    hidden, _ = model(ids, None, lengths, segments)
    together = model.head(hidden[segments >= 0])
    alone = torch.cat([model.head(model(document[None])[0])[0] for document in documents])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    targets = torch.cat(documents)
    parameters = [parameter for _, parameter in model.named_parameters()]
    gradients = [
        torch.autograd.grad(F.cross_entropy(found, targets, reduction="sum"), parameters, allow_unused=True)
        for found in (together, alone)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@EVERY
def test_packed_documents_cannot_continue_a_state(build: Callable[[], LanguageModel]) -> None:
    model = made(build)
    if isinstance(model, bigram.Bigram):
        pytest.skip("a bigram has nothing to continue")
    _, state = model(some_ids(1, 3))
    with pytest.raises(ValueError, match="anew"):
        model(some_ids(1, 3), state, None, torch.zeros(1, 3, dtype=torch.long))


@EVERY
def test_state_can_be_forked_selected_and_truncated(build: Callable[[], LanguageModel]) -> None:
    model = made(build)
    ids = some_ids(3, 9)
    with torch.no_grad():
        _, state = model(ids[:, :6], None, torch.tensor([6, 4, 5]))
        forked = state.fork().select(torch.tensor([2, 0]))
        model(ids[:, 6:], state)  # consumes the original, not the fork
        hidden, _ = model(torch.stack([ids[2, 5:7], ids[0, 6:8]]), forked.fork())
        again = model.head(hidden)
        hidden, _ = model(ids[[2, 0], 3:5], forked.truncate(3))
        rewound = model.head(hidden)
    torch.testing.assert_close(again[0], logits(model, ids[2:3, :7])[0, 5:7], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again[1], logits(model, ids[0:1, :8])[0, 6:8], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rewound, logits(model, ids[[2, 0], :5])[:, 3:5], atol=1e-5, rtol=1e-5)


class Batch:
    """Rows of one text each, read so far, and their state: after every step it compares with the rows read alone."""

    def __init__(self, model: LanguageModel, texts: list[Tensor], lengths: list[int]) -> None:
        self.model, self.texts, self.lengths = model, texts, lengths
        padded = torch.zeros(len(texts), max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            padded[row, :length] = texts[row][:length]
        with torch.no_grad():
            _, self.state = model(padded, None, torch.tensor(lengths))

    def step(self, count: int = 1) -> "Batch":
        pairs = list(zip(self.texts, self.lengths, strict=True))
        following = torch.stack([text[length : length + count] for text, length in pairs])
        with torch.no_grad():
            hidden, self.state = self.model(following, self.state)
        for row, (text, length) in enumerate(pairs):
            alone = logits(self.model, text[None, : length + count])[0, length:]
            torch.testing.assert_close(self.model.head(hidden)[row], alone, atol=1e-5, rtol=1e-5)
        self.lengths = [length + count for length in self.lengths]
        return self

    def select(self, rows: list[int]) -> "Batch":
        with torch.no_grad():
            self.state = self.state.select(torch.tensor(rows))
        self.texts, self.lengths = [self.texts[row] for row in rows], [self.lengths[row] for row in rows]
        return self

    def join(self, other: "Batch") -> "Batch":
        with torch.no_grad():
            self.state = self.state.join(other.state)
        self.texts, self.lengths = self.texts + other.texts, self.lengths + other.lengths
        return self

    def fork(self) -> "Batch":
        copy = object.__new__(Batch)
        copy.model, copy.texts, copy.lengths = self.model, list(self.texts), list(self.lengths)
        with torch.no_grad():
            copy.state = self.state.fork()
        return copy

    def truncate(self, n: int) -> "Batch":
        self.state = self.state.truncate(n)
        self.lengths = [min(length, n) for length in self.lengths]
        return self


def texts(rows: int) -> list[Tensor]:
    return list(some_ids(rows, CONTEXT))


@EVERY
def test_rows_of_any_length_join_a_batch_and_leave_it(build: Callable[[], LanguageModel]) -> None:
    model, some = made(build), texts(9)
    batch = Batch(model, some[:2], [3, 7]).step().step()
    batch.join(Batch(model, some[2:5], [1, 12, 4])).step().step(3)  # longer and shorter rows than those there
    batch.select([0, 4, 2]).step()  # two leave, the last one fills the hole
    batch.join(Batch(model, some[5:6], [2])).step()
    batch.join(Batch(model, some[6:8], [40, 5]).step()).step().step()
    batch.select([5]).step().join(Batch(model, some[8:], [9])).step()  # all but one leave


@EVERY
def test_rows_can_be_repeated_and_reordered(build: Callable[[], LanguageModel]) -> None:
    model, some = made(build), texts(4)
    batch = Batch(model, some[:3], [5, 2, 9]).step()
    batch.select([2, 0, 1]).step()
    batch.select([1, 1, 0, 2, 1])  # the rows of a beam go on differently from here
    batch.texts = [torch.cat([text[: batch.lengths[row]], some[3][row:]]) for row, text in enumerate(batch.texts)]
    batch.step().step().select([4, 3, 3, 0, 1]).step()


@EVERY
def test_a_batch_is_joined_after_it_was_cut(build: Callable[[], LanguageModel]) -> None:
    model, some = made(build), texts(4)
    batch = Batch(model, some[:2], [9, 6]).step().truncate(4).join(Batch(model, some[2:3], [8])).step()
    other = Batch(model, some[3:], [20]).truncate(2)
    batch.join(other).step().truncate(7).step(4)


@EVERY
def test_a_fork_and_its_original_go_separate_ways(build: Callable[[], LanguageModel]) -> None:
    model, some = made(build), texts(8)
    batch = Batch(model, some[:2], [3, 7]).join(Batch(model, some[2:3], [4])).step()  # there is room to spare
    fork = batch.fork()
    fork.texts = [torch.cat([text[: fork.lengths[row]], some[3 + row]]) for row, text in enumerate(fork.texts)]
    fork.step()
    batch.step()
    fork.step(2).join(Batch(model, some[6:7], [2]))
    batch.select([2, 1]).join(Batch(model, some[7:], [5])).step()
    fork.step()
    batch.truncate(3).step()
    fork.step()


@EVERY
def test_a_row_of_nan_leaves_nothing_behind(build: Callable[[], LanguageModel]) -> None:
    model, some = made(build), texts(5)
    embeddings = next(parameter for _, parameter in model.named_parameters() if parameter.shape[0] == VOCABULARY)
    healthy = embeddings.detach().clone()
    embeddings.data.fill_(float("nan"))
    sick = Batch(model, some[3:4], [20])
    embeddings.data.copy_(healthy)
    batch = Batch(model, some[:3], [4, 6, 3]).step().join(sick)
    following = torch.stack([text[length] for text, length in zip(batch.texts, batch.lengths, strict=True)])
    with torch.no_grad():
        hidden, batch.state = model(following[:, None], batch.state)
    assert not hidden[:3].isnan().any()
    batch.lengths = [length + 1 for length in batch.lengths]
    batch.select([0, 1, 2]).join(Batch(model, some[4:], [2])).step().select([3, 0, 1]).step(3)


@EVERY
def test_state_says_how_much_memory_it_holds(build: Callable[[], LanguageModel]) -> None:
    model = made(build)
    with torch.no_grad():
        _, short = model(some_ids(1, 4))
        _, long = model(some_ids(1, 40))
    remembers = not isinstance(model, bigram.Bigram)
    assert (long.nbytes > short.nbytes) == remembers


@EVERY
def test_how_much_a_state_will_hold_is_known_beforehand(build: Callable[[], LanguageModel]) -> None:
    model, some = made(build), texts(3)
    batch = Batch(model, some, [5, 30, 2])
    for _ in range(8):
        assert batch.step().state.nbytes <= 3 * model.state_nbytes(max(batch.lengths))
    if not isinstance(model, bigram.Bigram):
        assert 2 * batch.state.nbytes > 3 * model.state_nbytes(max(batch.lengths))  # and not by far too much
    for row in range(3):
        batch.join(Batch(model, some[row : row + 1], [4 + row])).step()
        assert batch.state.nbytes <= 4 * len(batch.texts) * model.state_nbytes(max(batch.lengths))
    assert batch.select([0]).state.nbytes <= 4 * model.state_nbytes(max(batch.lengths))


def addresses(state: Any) -> list[int]:
    return [buffer.data_ptr() for buffer in getattr(state, "memory", state).buffers]


@pytest.mark.parametrize("name", ["gpt", "gru", "hf llama"])
def test_a_steady_batch_stays_where_it_is(name: str) -> None:
    model, some = made(ROWS[name]), texts(6)
    batch = Batch(model, some[:2], [3, 7]).join(Batch(model, some[2:3], [20])).step()
    places = addresses(batch.state)
    for text in some[3:]:
        batch.step().select([0, 2]).join(Batch(model, [text], [9])).step()
    assert addresses(batch.state) == places


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("hf")])
def test_transformers_models_give_the_logits_of_transformers(name: str) -> None:
    model, ids = made(ROWS[name]), some_ids(2, 40)
    assert isinstance(model, hf.HFModel)
    with torch.no_grad():
        theirs = model.inner(ids).logits
        hidden, state = model(ids[:, :20])
        more, _ = model(ids[:, 20:], state)
    torch.testing.assert_close(model.head(torch.cat([hidden, more], dim=1)), theirs, atol=1e-5, rtol=1e-5)


LARGE: dict[str, Callable[[], LanguageModel]] = {  # layers that are large enough to be laid out anew, one of them wide
    "gpt": lambda: gpt.build({**SIZES, "vocab_size": 600, "hidden_size": 416}),
    "gpt, untied, grouped": lambda: gpt.GPT(
        gpt.GPTConfig(600, 416, 1100, 2, 8, 4, 52, CONTEXT, qk_norm=False, tie_word_embeddings=False)
    ),
    "hf llama": lambda: from_config(LlamaConfig(**{**SMALL, "vocab_size": 600, "hidden_size": 416})),
    "hf gpt2": lambda: from_config(
        GPT2Config(vocab_size=600, n_embd=416, n_layer=2, n_head=4, n_positions=CONTEXT, **IDS)
    ),
}


@pytest.mark.parametrize("build", list(LARGE.values()), ids=list(LARGE))
def test_a_model_laid_out_for_answering_gives_the_same_logits(build: Callable[[], LanguageModel]) -> None:
    model, some = made(build), texts(3)
    assert isinstance(model, gpt.GPT | hf.HFModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.2 if parameter.dim() > 1 else 1.0)  # logits of ordinary size
    before, size = [logits(model, text[None]) for text in some], model.vocab_size
    model = model.for_answering()
    for text, whole in zip(some, before, strict=True):
        torch.testing.assert_close(logits(model, text[None]), whole, atol=3e-5, rtol=1e-5)
    Batch(model, some[:2], [3, 7]).step().join(Batch(model, some[2:], [5])).step()
    assert model.vocab_size == size


def test_a_model_laid_out_for_answering_is_neither_trained_nor_saved(tmp_path: Path) -> None:
    for name in ("gpt", "hf gpt2"):
        model = made(LARGE[name])
        assert isinstance(model, gpt.GPT | hf.HFModel)
        for spent in (model.for_answering(), model):
            with pytest.raises(ValueError, match="load the model again"):
                spent.train()
            with pytest.raises(ValueError, match="load the model again"):
                spent.save(tmp_path)


@pytest.mark.parametrize(
    ("name", "own"),
    [("hf llama", True), ("hf qwen3", True), ("hf qwen3, every other layer with a window", False), ("hf gpt2", False)],
)
def test_a_stock_model_answers_as_our_own_class_where_that_computes_the_same(name: str, own: bool) -> None:
    model, ids = made(ROWS[name]), some_ids(2, 20)
    assert isinstance(model, hf.HFModel)
    before = logits(model, ids)
    lean = model.for_answering()
    assert isinstance(lean, gpt.GPT) == own
    torch.testing.assert_close(logits(lean, ids), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changed", [{"attention_bias": True}, {"hidden_act": "gelu"}, {"mlp_bias": True}])
def test_a_stock_model_that_computes_otherwise_stays_what_it_is(changed: dict[str, Any]) -> None:
    model = made(lambda: from_config(LlamaConfig(**SMALL, **changed)))
    assert isinstance(model, hf.HFModel)
    assert model.for_answering() is model


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_a_product_laid_out_is_the_same_to_the_bit_in_any_batch() -> None:
    rows = torch.randn(200, 1024, generator=torch.Generator().manual_seed(0))
    layer = Prepacked(torch.randn(128, 1024, generator=torch.Generator().manual_seed(1)))
    alone = torch.cat([layer(row[None]) for row in rows])
    counts = (2, 3, 4, 8, 9, 16, 17, 32, 33, 64, 65, 150, 200)
    assert all(torch.equal(layer(rows[:count]), alone[:count]) for count in counts)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_prompts_of_every_length_leave_few_products_behind() -> None:
    layer = Prepacked(torch.zeros(512, 256))
    with torch.profiler.profile(record_shapes=True) as watched:
        for rows in range(2, 1025, 7):
            layer(torch.zeros(rows, 256))
    products = [event for event in watched.events() if "linear_pointwise" in event.name]
    assert len(products) == 147
    assert len({tuple(event.input_shapes[0]) for event in products}) < 40


@EVERY
def test_saved_and_loaded_is_the_same_model(build: Callable[[], LanguageModel], tmp_path: Path) -> None:
    model = made(build)
    model.save(tmp_path)
    loaded = load_model(tmp_path)
    loaded.train(False)
    assert torch.equal(logits(loaded, some_ids(2, 8)), logits(model, some_ids(2, 8)))
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors"}


@EVERY
def test_it_can_learn_one_batch_by_heart(build: Callable[[], LanguageModel]) -> None:
    torch.manual_seed(0)
    model = build()
    ids = torch.arange(3, 33).view(3, 10)  # no token occurs twice, so that even a bigram can know it
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        hidden, _ = model(ids[:, :-1])
        loss = F.cross_entropy(model.head(hidden).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("name", ["gpt", "gpt without QK-norm, untied, grouped"])
def test_gpt_opens_as_the_stock_class_with_equal_logits(name: str, tmp_path: Path) -> None:
    model = made(ROWS[name])
    model.save(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(stock).__name__ == ("Qwen3ForCausalLM" if name == "gpt" else "LlamaForCausalLM")
    with torch.no_grad():
        theirs = stock(some_ids(2, 20)).logits
    torch.testing.assert_close(logits(model, some_ids(2, 20)), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["bigram", "gru"])
def test_own_classes_open_through_the_auto_class(name: str, tmp_path: Path) -> None:
    model = made(ROWS[name])
    model.save(tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(opened.eval(), some_ids(1, 5)), logits(model, some_ids(1, 5)))


@pytest.mark.parametrize("name", ["gpt", "gpt without QK-norm, untied, grouped", "bigram", "hf llama"])
def test_a_wider_vocabulary_keeps_what_was_known(name: str, tmp_path: Path) -> None:
    model, ids = made(ROWS[name]), some_ids(2, 9)
    before = logits(model, ids)
    assert isinstance(model, gpt.GPT | bigram.Bigram | hf.HFModel)
    model.resize(VOCABULARY + 3)
    assert model.vocab_size == VOCABULARY + 3
    torch.testing.assert_close(logits(model, ids)[..., :VOCABULARY], before)
    model.save(tmp_path)
    new = torch.tensor([[VOCABULARY, VOCABULARY + 2]])
    torch.testing.assert_close(logits(load_model(tmp_path), new), logits(model, new))


def test_gru_attention_is_the_same_over_blocks_of_queries() -> None:
    model = made(lambda: gru.build({**SIZES, "max_length": 256}))
    ids = some_ids(1, 150)
    state, pieces = None, []
    with torch.no_grad():
        for start in range(0, 150, 50):
            hidden, state = model(ids[:, start : start + 50], state)
            pieces.append(model.head(hidden))
    torch.testing.assert_close(torch.cat(pieces, dim=1), logits(model, ids), atol=1e-5, rtol=1e-5)


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match="does not divide"):
        build_model("gpt", {**SIZES, "hidden_size": 30})


def test_a_directory_without_weights_names_the_missing_file(tmp_path: Path) -> None:
    made(ROWS["gpt"]).save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_model(tmp_path)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    made(ROWS["hf llama"]).save(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_model(tmp_path)


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    made(ROWS["hf llama"]).save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("model.layers.0.self_attn.q_proj.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lack"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["gpt", "gru", "hf llama"])
def test_damaged_weights_are_an_error_not_a_traceback(name: str, tmp_path: Path) -> None:
    made(ROWS[name]).save(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError):
        load_model(tmp_path)
