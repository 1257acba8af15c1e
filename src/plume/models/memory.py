"""How much memory there is."""

from __future__ import annotations

import os
import sys
from pathlib import Path


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
