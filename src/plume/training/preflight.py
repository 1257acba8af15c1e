"""Before the first step: what the run will cost in memory and time, tried out on a copy of the model.

The probe changes nothing that training sees: the model is a copy, the optimiser its own at a learning rate of
zero, and torch's random state is put back.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from statistics import fmean, median

import torch

from plume.checks.settings import RunFacts, settings_findings
from plume.events import Preflight, Seconds
from plume.generation.engine import Engine
from plume.models import memory as machine
from plume.models.bundle import Bundle
from plume.text.calls import tools_of
from plume.training import memory, plan
from plume.training.batches import collate
from plume.training.epochs import EpochPlan, epoch_plan, lines_of
from plume.training.learner import alone
from plume.training.making import with_replay
from plume.training.measure import BASELINE_ROWS, asked_at_the_end, spread
from plume.training.optim import make_optimizer
from plume.training.prepare import Prepared
from plume.training.replay import rows_of_epoch
from plume.training.step import questions, step_once
from plume.types import Encoded, Example, Finding, Sampling, Source

_WASTE = 0.5
_PROBE_SECONDS = 1.0  # fast steps are repeated so long: one alone is mostly noise
_PROBE_SHARE = 0.02  # of the steps' own time, so that a short run is not tried out longer than it lasts
_PROBE_STEPS = 24
_DECODED = 8  # tokens of the generation probe
_SCORED = 2048  # tokens of the scoring probe
_ROWS = 64  # asked together, as the engine does
_DISK = 500e6  # bytes a second, written and synced
_SAMPLE_ROWS = 64


def preflight(prepared: Prepared) -> Preflight:
    """Estimate a run from three kinds of step: the first, one of median and one of greatest length."""
    recipe = prepared.recipe
    packing = bool(recipe.packing)
    epoch = _epoch(prepared)
    sizes = epoch.sizes
    largest = _rows(prepared, epoch, int(sizes.argmax()))
    inputs = [len(row.ids) - 1 for row in largest]
    lines = lines_of(inputs) if packing else [[number] for number in range(len(inputs))]
    fullest = max(lines, key=lambda line: sum(inputs[number] for number in line))
    bundle = prepared.bundle
    with torch.random.fork_rng(devices=[]):
        longest = collate([largest[number] for number in fullest], bundle.tokenizer.pad_id, packing=packing)
        need = memory.estimate(bundle.model, longest, len(lines))
        room = machine.available()
        fits = room is None or need.peak <= room
        seconds = _seconds(prepared, epoch) if fits else None
    peak = max(need.peak, _tried(prepared)) if seconds else need.peak
    padding = 1 - float(epoch.inputs.sum() / sizes.sum())
    findings = [*settings_findings(recipe, facts(prepared)), *_wasteful(prepared, padding)]
    if room is not None and not fits:
        findings.append(_too_large(prepared, need, room, len(largest)))
    return Preflight(
        steps=recipe.max_steps or 0,
        epochs=recipe.num_train_epochs or 0.0,
        trained_tokens=prepared.trained_tokens,
        cut_rows=_cut_rows(prepared),
        padding=padding,
        peak=peak,
        available=room,
        seconds=seconds,
        findings=tuple(findings),
    )


def facts(prepared: Prepared) -> RunFacts:
    """What Plume would choose by itself for this data, model and batch size."""
    recipe = prepared.recipe
    left_open: dict[str, None] = {"max_steps": None, "num_train_epochs": None, "learning_rate": None}
    parameters = sum(parameter.numel() for parameter in prepared.bundle.model.parameters())
    known = plan.TokenFacts(
        is_text=prepared.is_text,
        rows=len(prepared.rows),
        tokens=int(prepared.rows.lengths.sum()),
        longest=int(prepared.rows.lengths.max()),
        longest_reply=0,
        context_length=None,
        parameters=None if prepared.from_scratch else parameters,
    )
    usual = plan.choose_schedule(recipe.model_copy(update=left_open), with_replay(known, prepared.replay))
    steps, epochs, rate = (usual[key].value for key in left_open)
    per_epoch = max(1.0, float(steps) / max(1e-9, float(epochs)))
    return RunFacts(round(per_epoch), float(rate), int(steps))


def _epoch(prepared: Prepared) -> EpochPlan:
    """The batches of the first epoch, exactly as training will make them."""
    recipe = prepared.recipe
    batch_size = recipe.per_device_train_batch_size or 1
    longest = _longest_input(prepared)
    rows = rows_of_epoch(prepared.rows, prepared.replay, 0)
    packing = bool(recipe.packing)
    return epoch_plan(rows, batch_size=batch_size, max_length=longest, seed=recipe.seed, epoch=0, packing=packing)


def _rows(prepared: Prepared, epoch: EpochPlan, number: int) -> list[Encoded]:
    shown = rows_of_epoch(prepared.rows, prepared.replay, 0)
    return [piece.of(shown) for piece in epoch[number]]


def _longest_input(prepared: Prepared) -> int:
    return prepared.recipe.max_length or prepared.bundle.model.context_length


def _cut_rows(prepared: Prepared) -> int:
    """Conversations longer than the context; `prepare` refuses them, plain text is read in windows."""
    if prepared.is_text:
        return 0
    return int((prepared.rows.lengths > _longest_input(prepared)).sum())


def _tried(prepared: Prepared) -> int:
    """The most that the probe made this process hold, less the copy that training will not have."""
    return (machine.highest() or 0) - sum(parameter.nbytes for parameter in prepared.bundle.model.parameters())


# --- time ----------------------------------------------------------------------------------------


def _seconds(prepared: Prepared, epoch: EpochPlan) -> Seconds:
    bundle = replace(prepared.bundle, model=copy.deepcopy(prepared.bundle.model), stop_ids=frozenset())
    recipe = prepared.recipe
    one_batch = _step_seconds(prepared, bundle, epoch)
    passes = (recipe.max_steps or 0) * recipe.gradient_accumulation_steps
    asking = _Asking(prepared, bundle)
    weights = sum(parameter.nbytes for parameter in bundle.model.parameters())
    due = -(-(recipe.max_steps or 0) // (recipe.eval_steps or recipe.max_steps or 1))
    asked = _during(prepared)
    evaluations = asking.seconds(asked, stops=False) + (due - 1) * asking.seconds(asked, stops=True)
    evaluations += due * (3 * weights / _DISK + asking.sample())
    finish = asking.sample() + 6 * weights / _DISK
    for rows in asked_at_the_end(prepared).values():
        finish += asking.seconds(rows, stops=True)
        finish += asking.seconds(spread(rows, BASELINE_ROWS), stops=False)
    if prepared.replay:
        finish += 2 * asking.scoring(prepared.replay.held)
    return Seconds(passes * one_batch, evaluations, finish)


def _step_seconds(prepared: Prepared, bundle: Bundle, epoch: EpochPlan) -> float:
    """Mean seconds of a forward and backward pass with its update, over the batches of one epoch.

    Time is taken as linear in the tokens processed, between a batch of median and one of greatest size.
    """
    still = {"gradient_accumulation_steps": 1, "learning_rate": 0.0, "muon_learning_rate": 0.0}
    recipe = prepared.recipe.model_copy(update=still)
    learner = alone(bundle.model, make_optimizer(bundle.model, recipe), bf16=bool(recipe.bf16))
    packing = bool(recipe.packing)
    sizes = epoch.sizes
    ranked = sizes.argsort(kind="stable")
    numbers = {"median": int(ranked[len(ranked) // 2]), "longest": int(ranked[-1])}
    chosen = {name: _rows(prepared, epoch, number) for name, number in numbers.items()}
    taken: dict[str, list[float]] = {name: [] for name in chosen}

    def step(name: str) -> float:
        batch = collate(chosen[name], bundle.tokenizer.pad_id, packing=packing)
        return step_once(learner, [(0.0, batch)], 1, recipe).seconds

    first = step("longest")  # allocates, and prepares what the libraries prepare once
    enough = min(_PROBE_SECONDS, _PROBE_SHARE * first * (recipe.max_steps or 0))
    began = time.perf_counter()
    for _ in range(_PROBE_STEPS // 2):
        for name in ("median", "longest"):
            taken[name].append(step(name))
        if time.perf_counter() - began > enough:
            break
    middle, most = median(taken["median"]), median(taken["longest"])
    size = int(sizes[numbers["median"]])
    spare = int(sizes[numbers["longest"]]) - size
    slope = max(0.0, most - middle) / spare if spare else 0.0
    base = middle if spare else fmean((middle, most))
    return max(base / 4, base + slope * (float(sizes.mean()) - size))


class _Asking:
    """Seconds of answering and scoring, from a few tokens decoded and a few rows scored by the copy."""

    def __init__(self, prepared: Prepared, bundle: Bundle) -> None:
        self._prepared, self._engine = prepared, Engine(bundle)
        asked = _during(prepared)
        rows = self._few_rows(asked)
        self._engine.score(rows[:1])
        self._token = _timed(lambda: self._engine.score(rows)) / sum(len(row.ids) for row in rows)
        self._prompts = [] if prepared.is_text else [_prompt(self._engine, example) for example in spread(asked, _ROWS)]
        few = self._prompts[:1] or [rows[0].ids[:16]]
        self._engine.generate(few, Sampling(max_new_tokens=2))  # what libraries prepare once
        self._read, self._alone = self._decode(few)
        self._each = 0.0
        if len(self._prompts) > 1:
            self._read, together = self._decode(self._prompts)
            self._each = max(0.0, together - self._alone) / (len(self._prompts) - 1)

    def scoring(self, rows: Sequence[Encoded]) -> float:
        return self._token * sum(len(row.ids) for row in rows)

    def _decode(self, prompts: Sequence[Sequence[int]]) -> tuple[float, float]:
        """Seconds to read some prompts and decode one token, and to decode one more."""
        first = _timed(lambda: self._engine.generate(prompts, Sampling(max_new_tokens=1)))
        whole = _timed(lambda: self._engine.generate(prompts, Sampling(max_new_tokens=1 + _DECODED)))
        return first, max(0.0, whole - first) / _DECODED

    def _few_rows(self, asked: Sequence[Example]) -> list[Encoded]:
        """Rows from all over, of so many tokens together that they are scored as fast as all would be."""
        rows: list[Encoded] = []
        left = _SCORED
        for example in spread(asked, _ROWS):
            whole = self._encoded(example)
            rows.append(Encoded(whole.ids[:left], whole.trained[:left]))
            left -= len(rows[-1].ids)
            if left < 2:
                break
        return rows

    def _encoded(self, example: Example) -> Encoded:
        bundle = self._engine.bundle
        return bundle.template.encode(example.messages, bundle.tokenizer, tools_of(example.tools))

    def seconds(self, examples: Sequence[Example], *, stops: bool) -> float:
        """To score and ask these rows; a model that does not stop decodes up to the limit."""
        if not examples:
            return 0.0
        sampled = spread(examples, _SAMPLE_ROWS)
        scale = len(examples) / len(sampled)
        cost = scale * self._token * sum(len(self._encoded(example).ids) for example in sampled)
        if self._prepared.is_text:
            return cost
        tokenizer, limit = self._engine.bundle.tokenizer, self._prepared.bundle.max_new_tokens
        lengths = [
            min(limit, len(tokenizer.encode(turn.reply.said)) + 1) if stops else limit
            for example in sampled
            for turn in example.turns()
        ]
        groups = [lengths[start : start + _ROWS] for start in range(0, len(lengths), _ROWS)]
        for group in groups:
            read = self._read * len(group) / max(1, len(self._prompts))
            cost += scale * (read + max(group) * (self._alone - self._each) + self._each * sum(group))
        return cost

    def sample(self) -> float:
        """To continue a text by one sample, as text runs do at each evaluation."""
        return self._prepared.bundle.max_new_tokens * self._alone if self._prepared.is_text else 0.0


def _during(prepared: Prepared) -> Sequence[Example]:
    return questions(prepared)[0]


def _prompt(engine: Engine, example: Example) -> tuple[int, ...]:
    first = next(islice(example.turns(), 1))
    return engine.prompt(first.history, tools_of(first.tools))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# --- findings ------------------------------------------------------------------------------------


def _wasteful(prepared: Prepared, padding: float) -> Iterator[Finding]:
    if padding > _WASTE:
        message = f"{padding:.0%} of what is computed is padding"
        hint = "take a smaller per_device_train_batch_size, or split the longest rows"
        yield Finding("D311", "warning", Source(prepared.recipe.data), message, hint)


def _too_large(prepared: Prepared, need: memory.Need, available: int, rows: int) -> Finding:
    left = available - need.fixed
    fitting = int(left / max(1, need.per_row))
    if fitting >= 1:
        times = -(-rows // fitting) * prepared.recipe.gradient_accumulation_steps
        hint = f"--set per_device_train_batch_size={fitting} --set gradient_accumulation_steps={times}"
    else:
        hint = "take a smaller model or a smaller max_length, or free memory"
    message = f"the run needs about {need.peak / 2**30:.1f} GiB of memory; {available / 2**30:.1f} GiB are available"
    return Finding("D505", "error", Source(prepared.recipe.data), message, hint)
