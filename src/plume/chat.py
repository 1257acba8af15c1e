"""One turn of a conversation that persists: read it, fit it to the model's context, answer, write both down.

A question and its answer are kept together, once the answer is whole, at the place where the conversation was read. A
turn that is cancelled or fails leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import dropwhile, takewhile
from typing import Any

from plume.errors import ContextExceeded, NotFound, UserError
from plume.generation.engine import Engine, check_text
from plume.memory.store import Conversation, Item, Tenant, new_id
from plume.models.bundle import Bundle
from plume.text.window import Window, fit_window
from plume.types import Chunk, Message, Sampling

Recall = Callable[[str], Sequence[int]]  # the positions of older messages that a question is about, the best first

SUMMARY, SUMMARISED = "summary", "summarised"  # metadata: the text, and the position up to which it tells
_SUMMARY_SHARE = 8  # a summary gets at most one part in so many of the context
_OPENING = 4  # messages in which a persona is looked for
_SUMMARISE = "Summarise our conversation so far in at most three sentences."


@dataclass(frozen=True, slots=True)
class Told:
    """What the model is told before it answers: `tokens` of them, without the `left_out` oldest messages.

    `recalled` messages are there out of turn, and `summarised` says that a summary stands for those left out. In a
    conversation of more messages than the context has tokens, `left_out` counts those that were removed, too.
    """

    conversation: str
    tokens: int
    left_out: int
    recalled: int = 0
    summarised: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """The turn as it stands in the store."""

    conversation: str
    question: Item
    answer: Item


Event = Told | Chunk | Kept


def default_sampling(bundle: Bundle) -> Sampling:
    """The model's own, but for an answer that would take more than half of the context."""
    return replace(bundle.sampling, max_new_tokens=min(bundle.max_new_tokens, bundle.model.context_length // 2))


def one_answer(sampling: Sampling) -> Sampling:
    """The settings, which must ask for one answer. Raises UserError."""
    if sampling.n != 1:
        raise UserError(f"a turn has one answer, and n is {sampling.n}", "leave n out")
    return sampling


def begin(tenant: Tenant, persona: str | None = None) -> Conversation:
    """A new conversation; its persona is its first message, and takes the place of the model's."""
    made = tenant.create()
    if persona:
        tenant.append(made.id, [Message("system", persona)], at=made.head)
    return tenant.read(made.id)


def turn(
    engine: Engine,
    tenant: Tenant,
    id: str,
    question: str,
    sampling: Sampling | None = None,
    *,
    ids: tuple[str, str] | None = None,
    recall: Recall | None = None,
    summary: bool = False,
) -> Generator[Event]:
    """Ask a question in a conversation: `Told`, the answer's chunks, and `Kept` when both are written down.

    With `ids` for question and answer a turn may be repeated until it succeeds: one that was kept is told again as it
    stands. With `summary` the model keeps a summary of what no longer fits, in the conversation's metadata. Raises
    ConversationChanged when somebody else wrote meanwhile, ContextExceeded when persona and question leave no room for
    the answer, UserError, PlumeError.
    """
    asked = Message("user", question)
    if ids is not None and (known := _known(tenant, id, asked, ids)):
        yield Chunk(known.answer.message.content, (), "stop")
        yield known
        return
    before = history(tenant, id, engine.bundle.model.context_length, whole=recall is not None)
    asking = _Asking(engine, tenant.name, one_answer(sampling or default_sampling(engine.bundle)))
    answer, told = yield from _answer(asking, before, asked, recall=recall, summary=summary)
    items = tenant.append(id, [asked, answer], at=before.head, ids=ids)
    _keep_summary(tenant, before, told)
    yield Kept(id, *items)


def first_turn(
    engine: Engine, tenant: Tenant, question: str, sampling: Sampling | None = None, *, persona: str | None = None
) -> Generator[Event]:
    """As `turn`, for a conversation that is made with its persona, question and answer: a turn that is cancelled or
    fails leaves none behind."""
    id, asked = new_id("conv"), Message("user", question)
    said = (Item("", 0, Message("system", persona), 0.0),) if persona else ()
    asking = _Asking(engine, tenant.name, one_answer(sampling or default_sampling(engine.bundle)))
    answer, _ = yield from _answer(asking, History(id, 0, said, {}), asked, recall=None, summary=False)
    tenant.create(id)
    *_, first, second = tenant.append(id, [*(item.message for item in said), asked, answer], at=0)
    yield Kept(id, first, second)


def regenerate(
    engine: Engine,
    tenant: Tenant,
    id: str,
    sampling: Sampling | None = None,
    *,
    recall: Recall | None = None,
    summary: bool = False,
) -> Generator[Event]:
    """Ask the last question again. The old turn is taken out once the new one has been written down, so that neither is
    ever lost. Seeds count on from the head: sampled answers differ."""
    before = history(tenant, id, engine.bundle.model.context_length, whole=recall is not None)
    old = _last_turn(before.items)
    chosen = sampling or default_sampling(engine.bundle)
    chosen = replace(chosen, seed=(chosen.seed + before.head) % 2**63)
    asking, earlier = _Asking(engine, tenant.name, one_answer(chosen)), replace(before, items=before.items[: -len(old)])
    question = old[0].message
    answer, told = yield from _answer(asking, earlier, question, recall=recall, summary=summary)
    items = tenant.append(id, [question, answer], at=before.head)
    tenant.remove(id, [item.id for item in old])
    _keep_summary(tenant, before, told)
    yield Kept(id, *items)


def undo(tenant: Tenant, id: str) -> tuple[Item, ...]:
    """Take the last question out, with all that followed it. Raises UserError when there is none."""
    removed = _last_turn(tenant.read(id).items)
    tenant.remove(id, [item.id for item in removed])
    return removed


@dataclass(frozen=True, slots=True)
class History:
    """What of a conversation a model might be told; `unread` positions lie between the persona and the rest."""

    id: str
    head: int
    items: tuple[Item, ...]
    metadata: Mapping[str, Any]
    user: str | None = None
    unread: int = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(item.message for item in self.items)


def history(tenant: Tenant, id: str, most: int, *, whole: bool = False) -> History:
    """The persona and the newest messages of a conversation, as many as could fit a context of `most` tokens; or the
    `whole` of it. A turn that this would cut is left out."""
    found = tenant.read(id) if whole else tenant.read(id, last=most)
    items, unread = found.items, 0
    if not whole and len(items) == most:
        opening = tenant.read(id, first=_OPENING).items
        persona = tuple(takewhile(lambda item: item.message.role == "system", opening))
        if opening and opening[0].position < items[0].position:
            newest = tuple(dropwhile(lambda item: item.message.role != "user", items))
            after = persona[-1].position + 1 if persona else 0
            unread = (newest[0].position if newest else found.head) - after
            items = (*persona, *newest)
    return History(id, found.head, items, found.metadata, found.user, unread)


@dataclass(frozen=True, slots=True)
class _Asking:
    """Who is asked, for whom, and how."""

    engine: Engine
    scope: str
    sampling: Sampling

    def fit(self, messages: Sequence[Message], *, recalled: Sequence[int] = (), summary: str | None = None) -> Window:
        bundle = self.engine.bundle
        budget = bundle.model.context_length - self.sampling.max_new_tokens
        return fit_window(messages, bundle.template, bundle.tokenizer, budget, recalled=recalled, summary=summary)

    def stream(self, window: Window) -> Generator[Chunk]:
        return self.engine.stream(window.ids, self.sampling, scope=self.scope)


@dataclass(frozen=True, slots=True)
class _Summary:
    """What was said before a position, in short."""

    text: str
    until: int


def _answer(
    asking: _Asking, before: History, question: Message, *, recall: Recall | None, summary: bool
) -> Generator[Event, None, tuple[Message, _Summary | None]]:
    """The answer, and the summary that the model was told, if any."""
    check_text(question.content)
    messages = (*before.messages, question)
    places = {item.position: place for place, item in enumerate(before.items)}
    recalled = [places[found] for found in (recall(question.content) if recall else ()) if found in places]
    window, told = asking.fit(messages, recalled=recalled), None
    if summary and window.left_out:
        told = _summarise(asking, before, window.left_out)
        window = asking.fit(messages, recalled=recalled, summary=told.text if told else None)
    left_out = len(window.left_out) + before.unread
    yield Told(before.id, len(window.ids), left_out, len(window.recalled), window.summarised)
    text = ""
    with closing(asking.stream(window)) as chunks:
        for chunk in chunks:
            text += chunk.text
            yield chunk
    return Message("assistant", text), told


def _summarise(asking: _Asking, before: History, left_out: Sequence[int]) -> _Summary | None:
    """The summary that there is, brought up to date by the model with as much of what it lacks as it can read."""
    known = _summary_of(before.metadata)
    left = [before.items[place] for place in left_out]
    new = [item.message for item in left if known is None or item.position >= known.until]
    if not new:
        return known
    most = min(asking.sampling.max_new_tokens, asking.engine.bundle.model.context_length // _SUMMARY_SHARE)
    shorter = replace(asking, sampling=replace(asking.sampling, max_new_tokens=max(1, most)))
    earlier = [Message("system", known.text)] if known else []
    try:
        window = shorter.fit([*earlier, *new, Message("user", _SUMMARISE)])
    except ContextExceeded:
        return known
    with closing(shorter.stream(window)) as chunks:
        text = "".join(chunk.text for chunk in chunks).strip()
    return _Summary(text, left[-1].position + 1) if text else known


def _summary_of(metadata: Mapping[str, Any]) -> _Summary | None:
    text, until = metadata.get(SUMMARY), metadata.get(SUMMARISED)
    return _Summary(text, until) if isinstance(text, str) and isinstance(until, int) else None


def _keep_summary(tenant: Tenant, before: History, told: _Summary | None) -> None:
    if told is not None and told != _summary_of(before.metadata):
        metadata = tenant.read(before.id, first=0).metadata
        tenant.update(before.id, {**metadata, SUMMARY: told.text, SUMMARISED: told.until})


def _known(tenant: Tenant, id: str, question: Message, ids: tuple[str, str]) -> Kept | None:
    """The turn of these ids, if it was kept. Raises UserError when it asked something else.

    An append that repeats writes nothing: the tenant compares, since what it keeps may be redacted."""
    try:
        tenant.item(id, ids[0])
        answer = tenant.item(id, ids[1]).message
    except NotFound:
        return None
    return Kept(id, *tenant.append(id, [question, answer], ids=ids))


def _last_turn(items: Sequence[Item]) -> tuple[Item, ...]:
    """From the last question on. Raises UserError when nothing has been asked."""
    for place in range(len(items) - 1, -1, -1):
        if items[place].message.role == "user":
            return tuple(items[place:])
    raise UserError("nothing has been asked in this conversation yet", "ask something first")
