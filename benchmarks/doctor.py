"""What the doctor finds, how fast, and what each of its rules costs.

    python benchmarks/doctor.py [--rows 1000000] [--runs 3] [--work DIR]

Corpus: of the faults planted in tests/corpus, how many are named with code, severity and line, and how many of its
clean files are accused. Speed: a file of invented rows is checked with D1 and D2 on two processes, with and without
near-repeats (D202), beside a loop of `json.loads` over its lines in one process; every run is a process of its own,
sides alternating. Seconds are of the whole process; memory is the largest sum of resident sizes of a process and its
descendants, sampled. Prints one JSON line a comparison, medians of the runs; on stderr, what each rule costs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plume.checks.rules import Batch, RowRule, Survey

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

FAMILIES = ("D1", "D2")
PROCESSES = 2
SAMPLED = 100_000  # rows over which single rules are timed
PAUSE = 0.05  # seconds between two looks at memory
MEGABYTE = 2**20
CHECK = """
import sys
from plume.checks.parallel import examining
from plume.checks.selection import Selection
for _ in examining(sys.argv[1], selection=Selection(%r, %r), processes=%d):
    pass
"""
BARE = """
import json, sys
for line in open(sys.argv[1], encoding="utf-8"):
    json.loads(line)
"""
SIDES = {
    "with near-repeats": CHECK % (FAMILIES, (), PROCESSES),
    "without near-repeats": CHECK % (FAMILIES, ("D202",), PROCESSES),
    "bare loop": BARE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="about 300 bytes each")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where the file is made, and found again; else a temporary directory")
    options = parser.parse_args()
    compare_corpus()
    with tempfile.TemporaryDirectory() as folder:
        data = made(options.work or Path(folder), options.rows)
        show_costs(data)
        compare_speed(data, options.rows, options.runs)


def compare_corpus() -> None:
    from corpus.figures import figures, manifest

    counts = {"data": figures(manifest()), "scripts": script_figures(ROOT / "tests" / "corpus" / "scripts")}
    for kind, found in counts.items():
        report(
            f"doctor/corpus/{kind}", "false_alarms", "files", [(found["false_alarms"], found["clean"])], "clean files"
        )
        faults = [(found["named"], found["faults"])]
        report(f"doctor/corpus/{kind}", "faults_named", "files", faults, "files with a fault", lower=False)


def script_figures(folder: Path) -> dict[str, int]:
    """The same figures as for the data: files in which every fault was named with its line, and clean files accused."""
    from plume.checks.scripts import examine_script

    counts = {"faults": 0, "named": 0, "clean": 0, "false_alarms": 0}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name, expected in manifest.items():
        said = [[found.code, found.source.line] for found in examine_script(str(folder / name))]
        if expected:
            counts["faults"] += 1
            counts["named"] += all(fault in said for fault in expected)
        else:
            counts["clean"] += 1
            counts["false_alarms"] += bool(said)
    return counts


def compare_speed(data: Path, rows: int, runs: int) -> None:
    measured: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for _ in range(runs):
        for side, code in SIDES.items():
            measured[side].append(measure([sys.executable, "-c", code, str(data)]))
    peer = "json.loads of each line, one process"
    for side in ("with near-repeats", "without near-repeats"):
        bench = f"doctor/{rows} rows/{side}"
        pairs = list(zip(measured[side], measured["bare loop"], strict=True))
        report(bench, "peak_memory", "MB", [(ours[1], bare[1]) for ours, bare in pairs], peer)
        report(bench, "seconds", "s", [(ours[0], bare[0]) for ours, bare in pairs], peer)


def report(
    bench: str, metric: str, unit: str, runs: Iterable[tuple[float, float]], peer_name: str, *, lower: bool = True
) -> None:
    """Print the medians of pairs (Plume, peer)."""
    pairs = [{"plume": round(ours, 2), "peer": round(other, 2)} for ours, other in runs]
    plume, peer = (statistics.median(pair[side] for pair in pairs) for side in ("plume", "peer"))
    row = {
        "bench": bench,
        "metric": metric,
        "unit": unit,
        "plume": plume,
        "peer": peer,
        "peer_name": peer_name,
        "ratio": round(plume / peer, 3),
        "lower_is_better": lower,
        "runs": pairs,
    }
    print(json.dumps(row), flush=True)


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds of a process from start to end, and the most memory it and its descendants held, in MB."""
    began = time.monotonic()
    with subprocess.Popen(command) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(PAUSE)
        seconds = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(f"{command[:2]} ended with {process.returncode}")
    return seconds, peak / MEGABYTE


def resident(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold; pages they share count for each (Linux)."""
    parents: dict[int, int] = {}
    held: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                parents[int(entry.name)], held[int(entry.name)] = int(fields[1]), int(fields[21])
    family = [pid]
    for one in family:
        family += [child for child, parent in parents.items() if parent == one]
    return sum(held.get(one, 0) for one in family) * os.sysconf("SC_PAGE_SIZE")


def show_costs(data: Path) -> None:
    """Print on stderr what reading and each rule alone take, in microseconds of processor a row, worst first."""
    from plume.checks.rules import ROW_RULES, SURVEYS
    from plume.checks.run import batches
    from plume.data.json_text import values
    from plume.data.lines import lines

    costs: dict[str, float] = {}
    with data.open("rb") as stream:
        raw = list(islice(stream, SAMPLED))
    sample = data.with_name(f"sample-{data.name}")
    sample.write_bytes(b"".join(raw))

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        costs[name] = (time.process_time() - began) / len(raw) * 1e6
        return result

    timed("(json.loads of each line)", lambda: [None for line in raw if not json.loads(line)])
    with sample.open("rb") as stream:
        timed("(reading: JSON values with their lines)", lambda: [None for _ in values(lines(stream, ""))])
    several: list[Batch] = timed("(reading: everything, up to examples)", lambda: list(batches(str(sample))))
    sample.unlink()
    timed("(joining the text for row rules)", lambda: [len(batch.text) for batch in several])
    timed("(pairing prompts and completions)", lambda: [len(batch.asked) for batch in several])
    for rule, codes in owners(ROW_RULES).items():
        timed(f"{codes} {rule.__name__}", partial(told, rule, several))
    for survey, codes in owners(SURVEYS).items():
        one = survey()
        timed(f"{codes} {survey.__name__}, looking", partial(shown, one, several))
        timed(f"{codes} {survey.__name__}, concluding", partial(concluded, one))
    print(f"microseconds of processor a row, over {len(raw):,} rows", file=sys.stderr)
    for name, cost in sorted(costs.items(), key=lambda pair: -pair[1]):
        print(f"{cost:8.2f}  {name}", file=sys.stderr)
    total = sum(cost for name, cost in costs.items() if not name.startswith("("))
    print(f"{total:8.2f}  all rules and surveys", file=sys.stderr, flush=True)


def told(rule: RowRule, batches: Sequence[Batch]) -> None:
    for batch in batches:
        deque(rule(batch), maxlen=0)


def shown(survey: Survey, batches: Sequence[Batch]) -> None:
    for batch in batches:
        survey.see(batch)


def concluded(survey: Survey) -> None:
    deque(survey.findings(), maxlen=0)


def owners(registered: dict[str, list[Any]]) -> dict[Any, str]:
    """Each rule of the two families once, with the codes it may give."""
    found: dict[Any, list[str]] = {}
    for code, several in registered.items():
        for one in several if code.startswith(FAMILIES) else ():
            found.setdefault(one, []).append(code)
    return {one: "/".join(codes) for one, codes in found.items()}


def made(folder: Path, rows: int) -> Path:
    """The file of rows, made unless it is there."""
    from doctor_rows import write_rows

    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"rows-{rows}.jsonl"
    if not data.exists():
        unfinished = data.with_suffix(".part")
        write_rows(unfinished, rows)
        unfinished.replace(data)
    print(f"{rows:,} rows, {data.stat().st_size / 1e6:.0f} MB", file=sys.stderr, flush=True)
    return data


if __name__ == "__main__":
    main()
