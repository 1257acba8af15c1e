"""Which models are served, and which of them are in memory. A name is looked up; it never becomes part of a path."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from plume.errors import PlumeError, UserError
from plume.models.bundle import Bundle, for_answering, load
from plume.models.catalog import CATALOG, find_directory
from plume.models.memory import free
from plume.models.prepacked import weights_nbytes
from plume.runs import fingerprint
from plume.serving import record
from plume.serving.errors import ApiError, not_found
from plume.serving.settings import Settings
from plume.serving.worker import Worker

log = logging.getLogger("plume.serving")
T = TypeVar("T")
_SHARE = 0.8  # of the memory that is free when the server starts, for all models
_CACHE_SHARE = 0.25  # of that, at most, for what one model remembers of its answers
_FALLBACK = 2 * 2**30  # bytes, where the system does not say what is free


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that can be asked for: `id` on the wire, and where it lies. `tenant` is whose it is, None for
    everybody's; `root` the model that all the training began from."""

    id: str
    directory: Path
    created: int
    owned_by: str = "plume"
    tenant: str | None = None
    root: str | None = None


Source = Callable[[], Iterable[Entry]]


class Loaded:
    """A model in memory. What needs its tokenizer or template runs in one thread of its own, one thing at a time."""

    def __init__(self, entry: Entry, bundle: Bundle, mark: str, settings: Settings, budget: int) -> None:
        self.entry, self.bundle, self.fingerprint = entry, bundle, mark
        weights = weights_nbytes(bundle.model)
        most = settings.rows * bundle.model.state_nbytes(bundle.model.context_length)
        cache = max(1, min(most, int(_CACHE_SHARE * budget)))
        self.nbytes = weights + cache + cache // 4
        self.worker = Worker(
            bundle, rows=settings.rows, queue=settings.queue, cache_nbytes=cache, prefix_nbytes=cache // 4
        )
        self.used = time.monotonic()
        self._preparing = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="plume-prepare")

    @property
    def idle(self) -> bool:
        return not self.worker.outstanding and not self._preparing

    async def prepare(self, work: Callable[[], T]) -> T:
        """The result of what the tokenizer, the template or a grammar is needed for."""
        self._preparing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._preparing -= 1

    def retire(self) -> None:
        """No new request gets it. Those that have it already can still prepare: that thread ends with the last."""
        self.worker.retire()


class Models:
    """Entries come from `sources`, asked anew each time, so that what a job has just finished is there. Those that
    are used are loaded, and the least recently used ones dropped where memory is short."""

    def __init__(self, settings: Settings, sources: Iterable[Source] = ()) -> None:
        """Raises UserError for a model that is not there, or a name that two would bear."""
        self._settings = settings
        self.budget = settings.memory_nbytes or int(_SHARE * (free() or _FALLBACK))
        given = [_given(name) for name in settings.models]
        self.sources: list[Source] = [lambda: given, lambda: _lying_in(settings.data_dir / "models"), *sources]
        _refuse_twins(given)
        self._loaded: dict[str, Loaded] = {}
        self._loading = asyncio.Lock()

    @property
    def loaded(self) -> tuple[Loaded, ...]:
        return tuple(self._loaded.values())

    @property
    def trainable(self) -> tuple[str, ...]:
        """Names of architectures, from which a job may start with nothing."""
        return tuple(CATALOG)

    def entries(self, tenant: str) -> dict[str, Entry]:
        """What a tenant can ask for, by name; of two with one name the first source's counts."""
        found: dict[str, Entry] = {}
        for source in self.sources:
            for entry in source():
                if entry.tenant in (None, tenant):
                    found.setdefault(entry.id, entry)
        return found

    def find(self, name: str, tenant: str) -> Entry:
        """Raises ApiError 404, also for what is another tenant's."""
        entry = self.entries(tenant).get(name)
        if entry is not None:
            return entry
        if name in CATALOG:
            raise ApiError(
                400,
                f"{name!r} is an architecture to train, not a trained model: give it to /v1/fine_tuning/jobs",
                param="model",
                code="model_not_trained",
            )
        raise no_model(name)

    async def open(self, name: str, tenant: str) -> Loaded:
        """The model in memory. Raises ApiError 404 for an unknown one, 503 where there is no room for it now."""
        entry = self.find(name, tenant)
        record.current().model = entry.id
        loaded = self._current(entry)
        if loaded is None:
            async with self._loading:
                loaded = self._current(entry) or await self._load(entry)
        loaded.used = time.monotonic()
        return loaded

    def default(self, tenant: str) -> Entry:
        """The first model, for questions that name none. Raises ApiError 404."""
        entries = self.entries(tenant)
        if not entries:
            raise not_found("no model is served here", code="model_not_found")
        return next(iter(entries.values()))

    def drop(self, entry: Entry) -> None:
        """Forget a model that is no more; what it is just saying it says to its end."""
        loaded = self._loaded.get(entry.id)
        if loaded is not None and loaded.entry == entry:
            self._loaded.pop(entry.id).retire()

    def abort(self, error: PlumeError) -> None:
        """End all answers that are under way with an error."""
        for loaded in self._loaded.values():
            loaded.worker.abort(error)

    def close(self) -> None:
        for loaded in self._loaded.values():
            loaded.retire()
        for loaded in self._loaded.values():
            loaded.worker.join(5.0)
        self._loaded.clear()

    def _current(self, entry: Entry) -> Loaded | None:
        """The model as it is in memory, unless another one bears its name by now."""
        loaded = self._loaded.get(entry.id)
        if loaded is not None and loaded.entry != entry:
            self._loaded.pop(entry.id).retire()
            return None
        return loaded

    async def _load(self, entry: Entry) -> Loaded:
        self._make_room(await asyncio.to_thread(_file_nbytes, entry.directory), entry)
        began = time.monotonic()
        try:
            bundle, mark = await asyncio.to_thread(_opened, entry.directory)
        except PlumeError as error:  # the directory is at fault, not the request
            log.error("%s: %s", entry.id, error.message)
            message = f"{entry.id} cannot be opened; the server's log says why"
            raise ApiError(500, message, type="server_error", code="model_broken", retry=False) from None
        loaded = Loaded(entry, bundle, mark, self._settings, self.budget)
        try:
            self._make_room(loaded.nbytes, entry)
        except ApiError:
            loaded.retire()
            raise
        self._loaded[entry.id] = loaded
        log.info("loaded %s in %.2f s, up to %.0f MiB", entry.id, time.monotonic() - began, loaded.nbytes / 2**20)
        return loaded

    def _make_room(self, nbytes: int, entry: Entry) -> None:
        """Drop idle models, the least recently used first. Raises ApiError 503 where that is not enough."""
        if nbytes > self.budget:
            message = f"{entry.id} needs {nbytes / 2**20:,.0f} MiB; {self.budget / 2**20:,.0f} MiB are allowed"
            raise ApiError(503, message, type="server_error", code="model_too_large", retry=False)
        idle = sorted((one for one in self._loaded.values() if one.idle), key=lambda one: one.used)
        while sum(one.nbytes for one in self._loaded.values()) + nbytes > self.budget:
            if not idle:
                message = f"there is no room for {entry.id} while other models answer"
                raise ApiError(503, message, type="server_error", code="models_busy", retry=True, retry_after=5)
            dropped = idle.pop(0)
            del self._loaded[dropped.entry.id]
            dropped.retire()
            log.info("dropped %s", dropped.entry.id)


def no_model(name: str) -> ApiError:
    return not_found(f"there is no model {name!r} here", param="model", code="model_not_found")


def _given(name: str) -> Entry:
    directory = find_directory(name)
    return _entry(Path(name).resolve().name if Path(name).is_dir() else name, directory)


def _entry(id: str, directory: Path) -> Entry:
    return Entry(id, directory, int(directory.stat().st_mtime))


def _lying_in(directory: Path) -> Iterator[Entry]:
    """Runs and model directories, by their own names."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if (path / "config.json").is_file() or (path / "model" / "config.json").is_file():
            yield _entry(path.name, find_directory(str(path)))


def _refuse_twins(entries: Iterable[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        if entry.id in seen:
            raise UserError(
                f"two models would be called {entry.id!r}: {seen[entry.id].directory} and {entry.directory}",
                "rename one of the directories",
            )
        seen[entry.id] = entry


def _opened(directory: Path) -> tuple[Bundle, str]:
    bundle = for_answering(load(directory), batched=True)
    bundle.tokenizer.token_bytes(0)  # its table is made here, once, and not by two threads at a time
    digest = hashlib.sha256(fingerprint(str(directory)).encode()).hexdigest()
    return bundle, f"fp_{digest[:16]}"


def _file_nbytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))
