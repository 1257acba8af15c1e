"""How many processors a process may keep busy, over made-up systems."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plume.processors import bfloat16_units, cores


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n", encoding="utf-8")
    return root


def threads(pairs: dict[int, str]) -> dict[str, str]:
    return {f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": text for cpu, text in pairs.items()}


PAIRED = threads({0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"})
EIGHT = range(8)


@pytest.mark.parametrize(
    ("files", "allowed", "expected"),
    [
        ({}, EIGHT, 8),  # nothing is known: each processor is a core
        (PAIRED, EIGHT, 4),
        (PAIRED, {0, 4}, 1),  # both threads of one core
        (PAIRED, {0, 1, 4}, 2),
        (threads({cpu: str(cpu) for cpu in EIGHT}), EIGHT, 8),
        (threads({0: "0-1", 1: "0-1"}), {0, 1}, 1),
    ],
)
def test_hyper_threads_of_a_core_count_once(files: Any, allowed: Any, expected: int, tmp_path: Path) -> None:
    assert cores(write(tmp_path, files), allowed=allowed, environment={}) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        # the group above grants less
        (
            {
                "proc/self/cgroup": "0::/pod/box",
                "sys/fs/cgroup/pod/cpu.max": "350000 100000",
                "sys/fs/cgroup/pod/box/cpu.max": "600000 100000",
            },
            3,
        ),
        # the path is the host's; inside the container only the mount exists
        ({"proc/self/cgroup": "0::/host/box", "sys/fs/cgroup/cpu.max": "500000 100000"}, 5),
        (
            {
                "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8,
        ),
        ({"proc/self/cgroup": "nonsense", "sys/fs/cgroup/cpu.max": ""}, 8),
    ],
)
def test_a_containers_quota_bounds_the_number(files: Any, expected: int, tmp_path: Path) -> None:
    assert cores(write(tmp_path, files), allowed=EIGHT, environment={}) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "3"}, 3),
        ({"SLURM_CPUS_PER_TASK": "64"}, 8),
        ({"LOCAL_WORLD_SIZE": "2"}, 4),
        ({"LOCAL_WORLD_SIZE": "16"}, 1),
        ({"LOCAL_WORLD_SIZE": "2", "SLURM_CPUS_PER_TASK": "6"}, 3),
        ({"LOCAL_WORLD_SIZE": "two", "SLURM_CPUS_PER_TASK": ""}, 8),
    ],
)
def test_what_a_launcher_shares_out_is_kept_to(environment: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert cores(tmp_path, allowed=EIGHT, environment=environment) == expected


def test_a_mac_counts_its_fast_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def sysctl(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, "6\n" if "perflevel0" in command[-1] else "10\n")

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", sysctl)
    assert cores(tmp_path, environment={}) == 6


def test_a_system_that_says_nothing_gives_its_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores(tmp_path, environment={}) == 5


def test_this_machine_has_at_least_one() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512_bf16 rdpid", True), ("fpu amx_bf16 amx_tile", True), ("fpu avx2 avx512f", False)],
)
def test_units_for_bfloat16_are_among_the_flags(flags: str, expected: bool, tmp_path: Path) -> None:
    text = f"processor\t: 0\nmodel name\t: avx512_bf16 in a name\nflags\t\t: {flags}"
    assert bfloat16_units(write(tmp_path, {"proc/cpuinfo": text})) is expected


def test_a_system_that_says_nothing_has_no_units_for_bfloat16(tmp_path: Path) -> None:
    assert not bfloat16_units(tmp_path)
