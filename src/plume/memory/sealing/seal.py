"""What a store asks of the one who seals its bodies, and the one who seals nothing.

Keys of persons and the mark of a sealed store lie in the store itself, as plain documents of a tenant of Plume's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from plume.errors import NotFound, PlumeError, UserError, shown
from plume.memory.store import Document, Store

if TYPE_CHECKING:
    from plume.memory.sealing.master import MasterKey

T = TypeVar("T")

KEPT = "plume:sealing"  # the tenant; its kinds are the tenants whose keys they are
MARK = (KEPT, "store")  # kind and id
FORM = b"\x01"  # begins a sealed body, and no JSON text


class Section(NamedTuple):
    """A conversation's messages, its metadata, a document …: what shares a derived key."""

    what: str
    tenant: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} {' '.join(map(shown, self.names))} of {shown(self.tenant)}"

    def at(self, number: int) -> str:
        """In words, of one body: a position in a conversation, or a revision."""
        return f"{self}, {'revision' if self.what == 'document' else 'position'} {number}"


Body = tuple[int, str, bytes]  # its number in the section, the name that belongs to it, and itself


class Damaged(PlumeError):
    """A stored body is not what was sealed for its place."""


class KeyGone(PlumeError):
    """The key of a body was destroyed, or retired since the body was read."""


class Cipher(Protocol):
    """Seals the bodies of one section."""

    def seal(self, number: int, name: str, body: bytes) -> bytes: ...


class Sealing(Protocol):
    """Who seals and opens the bodies of a store.

    Whoever writes gives `person_key` what the store holds of the person's keys at that moment, and makes sure that
    this is still so when the write happens: then no body is sealed with a key that has been replaced or destroyed.
    """

    @property
    def active(self) -> bool: ...
    def person(self, tenant: str, user: str | None) -> str:
        """The name of the document that holds this person's keys."""
        ...

    def first_keys(self, tenant: str, user: str | None, mark: bytes | None) -> bytes:
        """The body of that document when there is none yet; `mark` is the body of the store's mark at this moment."""
        ...

    def cipher(self, keys: bytes, user: str | None, section: Section) -> Cipher:
        """Seals with the newest key in the body of that document."""
        ...

    def open(self, section: Section, bodies: Sequence[Body]) -> list[bytes]:
        """Raises KeyGone, and Damaged for what was not sealed for its place."""
        ...

    def destroy(self, tenant: str, user: str | None) -> bool:
        """Nobody can open what was sealed for this person any more, wherever it still lies; without a `user`, for
        anybody in the tenant. Was there a key?"""
        ...


class _Plain:
    """Bodies lie as they are."""

    active = False

    def person(self, tenant: str, user: str | None) -> str:
        raise NotImplementedError

    def first_keys(self, tenant: str, user: str | None, mark: bytes | None) -> bytes:
        raise NotImplementedError

    def cipher(self, keys: bytes, user: str | None, section: Section) -> Cipher:  # noqa: ARG002
        return self

    def seal(self, number: int, name: str, body: bytes) -> bytes:  # noqa: ARG002
        return body

    def open(self, section: Section, bodies: Sequence[Body]) -> list[bytes]:
        found = [raw for _, _, raw in bodies]
        if FORM in {raw[:1] for raw in found}:
            raise PlumeError(f"{section} is sealed, and this store is not", "open it with the key of the store")
        return found

    def destroy(self, tenant: str, user: str | None) -> bool:  # noqa: ARG002
        return False


PLAIN = _Plain()


def sealing_of(store: Store, name: str, masters: Sequence[MasterKey]) -> Sealing:
    """Who seals in this store. An empty one is marked as sealed when there are keys.

    Raises UserError for keys that do not open it, for none when it is sealed, and for some when it holds plain bodies.
    """
    try:
        kept: Document | None = store.tenant(KEPT).get(*MARK)
    except NotFound:
        kept = None
    if kept is None and not masters:
        return PLAIN
    try:
        from plume.memory.sealing.keyring import Keyring
        from plume.memory.sealing.mark import check, new_mark, parse_mark
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        raise UserError(f"{name}: the library {library} is missing", "pip install 'plume-lm[sealing]'") from None
    if not masters:
        from plume.memory.sealing.master import KEY, KEY_FILE

        hint = f"set {KEY}, or {KEY_FILE} to the file that holds it"
        raise UserError(f"{name}: the store is sealed, and no key was given", hint)
    mark = new_mark(store, name, masters) if kept is None else parse_mark(kept.body)
    check(mark, name, masters)
    return Keyring(masters, store.tenant, accepts_plain=mark.state == "sealing")


def settled(read: Callable[[], T]) -> T:
    """A rotation may retire a key between the reading of a body and its opening: then the body is sealed anew."""
    try:
        return read()
    except KeyGone:
        return read()
