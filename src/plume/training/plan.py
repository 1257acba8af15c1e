"""What the recipe leaves open is chosen here: a function of data, model and seed, never of time.

Every choice says in a few words why. Sizes are chosen in `sizes`, a rate by trying in `range_test`; the figures behind
the choices are in docs/lab-notes.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from plume.checks.tokens import padding_waste
from plume.errors import UserError
from plume.events import Choice
from plume.processors import cores, processes
from plume.recipe import Recipe

Choices = dict[str, Choice]

TEXT_CONTEXT = 128
_TEXT_TOKENS = 1024  # in a step
_LONGEST_CONTEXT = 1024
_FEW_ROWS = 400
_WORTH_PACKING = 0.1  # share of padding
_GRU_EPOCHS = 5  # over a text by words
_REPLAY_RATIO = 0.1  # of the trained tokens
_LORA_RATE, _LORA_MOST = 10, 5e-3  # times the rate that trains all weights, and its bound
MUON_RATE, MUON_OTHERS_RATE = 0.02, 0.01


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What is known of the data before there is a tokenizer."""

    is_text: bool
    characters: int


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What is known once it is encoded. Lengths in tokens."""

    is_text: bool
    rows: int
    tokens: int
    longest: int
    longest_reply: int
    context_length: int | None  # of a pretrained model
    parameters: int | None


def choose_text(recipe: Recipe, facts: TextFacts) -> Choices:
    """Tokenizer, vocabulary and template for a model from scratch."""
    by_model = {"bigram": ("char", "a bigram of letters"), "gru": ("word", "a GRU reads whole words")}
    usual = by_model.get(recipe.model, ("bpe", "pieces of words, learnt from the rows"))
    kind, why = ("char", "plain text is read letter by letter") if facts.is_text else usual
    chosen = recipe.tokenizer or kind
    largest = {
        "char": Choice(4096, "at most; every character of the text"),
        "word": Choice(20_000, "at most; every word of the rows"),
        "bpe": Choice(_between(512, facts.characters // 25, 8192), "at most; one for each 25 characters"),
    }
    template = Choice("raw", "text as it stands") if facts.is_text else Choice("sep", "question, mark, answer")
    if recipe.model == "gpt" and not facts.is_text:
        template = Choice("chat", "questions and answers")
    return unset(recipe, tokenizer=Choice(chosen, why), vocab_size=largest[chosen], template=template)


def choose_lengths(recipe: Recipe, facts: TokenFacts) -> Choices:
    """Context and longest answer: twice what the data needs, so that longer questions still fit."""
    if facts.is_text:
        context, why = TEXT_CONTEXT, "text is read in windows"
        reply, longest = 200, "length of the samples"
    else:
        context = _between(64, -(-2 * facts.longest // 32) * 32, _LONGEST_CONTEXT)
        why = f"about twice the longest row, {facts.longest} tokens"
        reply, longest = math.ceil(facts.longest_reply * 1.5) + 8, f"the longest answer has {facts.longest_reply}"
    if facts.context_length:
        context = facts.context_length if not facts.is_text else min(facts.context_length, 256)
        why = "the model's own context"
    context = recipe.max_length or context
    reply = reply if facts.is_text else min(reply, context)
    return unset(recipe, max_length=Choice(context, why), max_new_tokens=Choice(reply, longest))


def choose_replay(recipe: Recipe) -> Choices:
    """How much general text is mixed in, where some is named."""
    return unset(recipe, replay_ratio=Choice(_REPLAY_RATIO, "a tenth of what is learnt"))


def choose_packing(recipe: Recipe, lengths: Sequence[int]) -> Choices:
    """Pack where batches of similar length would still be padding for a good part: rows of very different length.

    Only for `gpt`: the others gain nothing (`gru`, `bigram`), or may not be able to (foreign architectures).
    """
    inputs = [length - 1 for length in lengths]
    waste = padding_waste(inputs, recipe.per_device_train_batch_size or 1, recipe.max_length)
    packing = recipe.model == "gpt" and waste > _WORTH_PACKING
    return unset(recipe, packing=Choice(packing, f"{waste:.0%} of batches of similar length would be padding"))


def choose_schedule(recipe: Recipe, facts: TokenFacts) -> Choices:
    """Batch, steps, optimiser and intervals. Raises UserError for an optimiser that does not fit."""
    size = _batch_size(recipe, facts)
    batch = (recipe.per_device_train_batch_size or int(size.value)) * processes()
    rows = math.ceil(facts.tokens / (recipe.max_length or TEXT_CONTEXT)) if facts.is_text else facts.rows
    per_epoch = max(1, math.ceil(rows / (batch * recipe.gradient_accumulation_steps)))
    if recipe.num_train_epochs:
        wished = max(1, round(per_epoch * recipe.num_train_epochs))
        count = Choice(wished, f"{recipe.num_train_epochs:g} epochs of {per_epoch:,}")
    else:
        count = _steps(recipe, facts, per_epoch)
    steps = recipe.max_steps or int(count.value)
    evaluations = 5 if facts.is_text else 8
    interval = recipe.eval_steps or max(1, math.ceil(steps / evaluations))
    epochs = float(f"{steps / per_epoch:.3g}")
    return unset(
        recipe,
        per_device_train_batch_size=size,
        max_steps=count,
        num_train_epochs=Choice(epochs, f"{steps:,} steps, {per_epoch:,} an epoch"),
        **_optimiser(recipe, facts),
        warmup_steps=Choice(min(steps // 10, 100), "a tenth of the steps, at most 100"),
        eval_steps=Choice(interval, f"{evaluations} evaluations"),
        early_stopping_patience=_patience(),
        save_steps=Choice(interval, "with every evaluation"),
        torch_num_threads=Choice(cores(), "processor cores"),
    )


def _patience() -> Choice:
    return Choice(0, "the best evaluation is kept anyway, and often comes late")


def _batch_size(recipe: Recipe, facts: TokenFacts) -> Choice:
    """Rows of one process; those of a step are shared out."""
    rows = _rows_of_a_step(recipe, facts)
    return replace(rows, value=max(1, int(rows.value) // processes()))


def _rows_of_a_step(recipe: Recipe, facts: TokenFacts) -> Choice:
    if facts.is_text and recipe.model == "gpt":
        length = recipe.max_length or TEXT_CONTEXT
        return Choice(max(1, _TEXT_TOKENS // length), f"steps of about {_TEXT_TOKENS:,} tokens")
    if facts.is_text:
        return Choice(64 if recipe.model == "bigram" else 16, "text")
    few = facts.rows < _FEW_ROWS
    return Choice(16 if few else 32, f"{'fewer than' if few else 'at least'} {_FEW_ROWS} rows")


def _steps(recipe: Recipe, facts: TokenFacts, per_epoch: int) -> Choice:
    if word_text(recipe, facts):
        return Choice(_between(300, _GRU_EPOCHS * per_epoch, 1500), f"about {_GRU_EPOCHS} passes over a text by words")
    if facts.is_text:
        return Choice(1000 if recipe.model == "bigram" else 1500, "text")
    if facts.parameters:  # fine-tuning starts from something
        return Choice(_between(200, 15 * per_epoch, 3 * per_epoch + 1500), _passes(facts))
    least = _between(300, 60 * per_epoch, 600)  # a few rows are learnt sooner, and then only learnt by heart
    return Choice(_between(least, 30 * per_epoch, 3 * per_epoch + 1500), _passes(facts))


def _passes(facts: TokenFacts) -> str:
    return f"many passes over {facts.rows:,} row{'' if facts.rows == 1 else 's'}"


def _optimiser(recipe: Recipe, facts: TokenFacts) -> Choices:
    """Muon where its products cost less than the steps it spares, and its rates. Raises UserError."""
    usual = (recipe.model == "gpt" and facts.is_text) or word_text(recipe, facts)
    optim = recipe.optim or ("muon" if usual else "adamw")
    if optim == "muon" and recipe.model == "bigram":
        raise UserError("optim=muon: a bigram has no layers whose matrices it could step", "leave optim out")
    if optim == "adamw" and recipe.muon_learning_rate:
        raise UserError("muon_learning_rate is read with optim=muon alone", "set learning_rate, or optim=muon")
    why = "fewer steps to the same loss on text" if usual else "as good here, and cheaper a step"
    rates = {"optim": Choice(optim, why), "learning_rate": _learning_rate(recipe, facts)}
    if optim == "muon":
        rates["learning_rate"] = Choice(MUON_OTHERS_RATE, "usual beside Muon")
        if recipe.learning_rate != "auto":  # the range test chooses both
            rates["muon_learning_rate"] = Choice(MUON_RATE, "usual for Muon")
    return rates


def word_text(recipe: Recipe, facts: TokenFacts) -> bool:
    """A GRU that reads plain text by words."""
    return facts.is_text and recipe.model == "gru" and recipe.tokenizer == "word"


def _learning_rate(recipe: Recipe, facts: TokenFacts) -> Choice:
    """AdamW's. Smaller models take larger rates; a pretrained one about 1/sqrt(parameters)."""
    scratch = {"bigram": 2e-2, "gru": 3e-3, "gpt": 1.5e-3}
    if recipe.model in scratch:
        return Choice(scratch[recipe.model], f"usual for {recipe.model} from scratch")
    parameters = facts.parameters or 1
    usual = 1 / math.sqrt(parameters)
    if recipe.lora_r:
        rate = min(_LORA_MOST, _LORA_RATE * usual)
        return Choice(float(f"{rate:.1e}"), f"an adapter takes {_LORA_RATE} times what {parameters:,} parameters take")
    return Choice(float(f"{min(1e-3, usual):.1e}"), f"{parameters:,} parameters: 1/sqrt")


def unset(recipe: Recipe, **choices: Choice) -> Choices:
    """Only the choices for keys that the recipe leaves open."""
    return {key: choice for key, choice in choices.items() if getattr(recipe, key) is None}


def taken(recipe: Recipe, choices: Choices) -> Recipe:
    """The recipe with these choices."""
    return recipe.model_copy(update={key: choice.value for key, choice in choices.items()})


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
