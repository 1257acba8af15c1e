"""How much memory there is, and whether a model fits into it, known before it is opened."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from plume.errors import UserError
from plume.models.weights import quantized_file, read_header, weight_files

_WORKING = 128 * 2**20  # bytes beside the weights: parts of torch that are imported only then, and a short answer


def refuse_too_large(directory: Path, file: Path | None = None) -> None:
    """Raise UserError when a model, or its quantised `file`, would not fit into the memory that is free."""
    room, needed = free(), need(directory, file)
    if room is None or needed <= room:
        return
    said = f"{directory} needs {_gb(needed)} of memory, {_gb(room)} are available"
    copies = {kind: quantized_file(directory, kind) for kind in ("int8", "int4")}
    sizes = {kind: need(directory, copy) for kind, copy in copies.items() if copy.is_file() and copy != file}
    fitting = [f"--quantization {kind} needs {_gb(size)}" for kind, size in sizes.items() if size <= room]
    hint = "; ".join(fitting) or "close other programs, or use a smaller model"
    if not fitting and not file and not sizes:
        hint += "; plume export --format int8, where there is room, makes a copy of about a third of the size"
    raise UserError(said, hint)


def need(directory: Path, file: Path | None = None) -> int:
    """Bytes that opening a model takes, read off the headers of its files: weights as float32, or as quantised."""
    if file:
        return _WORKING + read_header(file).nbytes
    return _WORKING + sum(read_header(weights).nbytes_f32 for weights in weight_files(directory))


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.0f} MB"


def resident() -> int | None:
    """Bytes of memory that this process holds now; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return highest()
    return pages * os.sysconf("SC_PAGE_SIZE")


def highest() -> int | None:
    """The most that this process has held."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def available() -> int | None:
    """Bytes that this process may come to hold, with what it holds already; None where the system does not say."""
    room = free()
    return None if room is None else room + (resident() or 0)


def free() -> int | None:
    """Bytes that this process may take beside what it holds already; None where the system does not say."""
    limits = [limit for limit in (_meminfo(), _container()) if limit is not None]
    if limits:
        return min(limits)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _meminfo() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _container() -> int | None:
    """What is left of a container's limit (cgroup v2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        held = int((folder / "memory.current").read_text(encoding="ascii"))
        counted = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    cached = int(counted.get("inactive_file", 0))  # given back when asked for
    return None if limit == "max" else max(0, int(limit) - held + cached)
