"""How many processors this process may keep busy, from what the system says."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

_ALL = Path("/")
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
_MAC = ("hw.perflevel0.physicalcpu", "hw.physicalcpu")  # the fast cores, or all where they are of one kind


def cores(
    root: Path = _ALL, *, allowed: Collection[int] | None = None, environment: Mapping[str, str] = os.environ
) -> int:
    """Physical cores for one process, at least 1.

    Two hyper-threads of a core share its arithmetic units, so they count once. A container's quota and Slurm's
    SLURM_CPUS_PER_TASK bound the number; the processes that a launcher starts on one machine (LOCAL_WORLD_SIZE)
    share it. `root` is where /sys and /proc begin, `allowed` are the logical processors of the affinity mask.
    """
    count = float(_physical(root, _mask() if allowed is None else allowed))
    count = min(count, *_quotas(root), _number(environment, "SLURM_CPUS_PER_TASK") or count)
    return max(1, int(count) // (_number(environment, "LOCAL_WORLD_SIZE") or 1))


def bfloat16_units(root: Path = _ALL) -> bool:
    """Whether the processor multiplies bfloat16 itself (x86 only; elsewhere the system says nothing of it)."""
    lines = _text(root / "proc/cpuinfo").splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return not _BFLOAT16.isdisjoint(flags)


def processes(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes of one run a launcher has started, on all machines together."""
    return _number(environment, "WORLD_SIZE") or 1


def _mask() -> Collection[int]:
    """The logical processors that the process may run on; where the system has no masks, as many as it has cores."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range((_mac_cores() if sys.platform == "darwin" else None) or os.cpu_count() or 1)


def _physical(root: Path, allowed: Collection[int]) -> int:
    return len({_siblings(root, number) for number in allowed})


def _siblings(root: Path, number: int) -> str:
    """The threads of a processor's core, the same text for each of them."""
    text = _text(root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
    return text or str(number)


def _quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time that control groups grant, the group of the process and all above it."""
    yield float("inf")
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            for group in _upwards(mount, path):
                yield from _share(*_text(group / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for folder in (controllers, "cpu"):
                for group in _upwards(mount / folder, path):
                    yield from _share(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it; inside a container, only the mount itself may exist."""
    group = mount / path.strip("/")
    yield group
    yield from (parent for parent in group.parents if parent.is_relative_to(mount))


def _share(quota: str = "", period: str = "") -> Iterator[float]:
    """`max` and -1 mean no limit."""
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        yield int(quota) / int(period)


def _mac_cores() -> int | None:
    for name in _MAC:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, encoding="ascii")
            if done.returncode == 0 and done.stdout.strip().isdecimal():
                return int(done.stdout) or None
    return None


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "").strip()
    return int(value) if value.isdecimal() else 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
