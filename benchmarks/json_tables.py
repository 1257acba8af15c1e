"""The figures of benchmarks/json_schemas.py: tables for people on stderr, comparisons in JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from schema_cases import Case

Row = dict[str, Any]


def report(
    metric: str, unit: str, ours: float | None, theirs: float | None, name: str | None, lower: bool, runs: Any = ()
) -> None:
    ratio = round(ours / theirs, 3) if ours is not None and theirs else None
    row = {"bench": "json_schemas", "metric": metric, "unit": unit, "plume": ours, "peer": theirs, "peer_name": name}
    print(json.dumps(row | {"ratio": ratio, "lower_is_better": lower, "runs": list(runs)}), flush=True)


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    for line in (head, ["---"] * len(head), *lines):
        print("| " + " | ".join(map(str, line)) + " |", file=sys.stderr)
    print(file=sys.stderr, flush=True)


# --- answers ---------------------------------------------------------------------------------------


def answers(rows: Sequence[Row], part: str) -> None:
    """By tokenizer: schemas refused, answers asked for, limits refused, and how many answers are not valid."""
    print(f"## {part}: answers of an untrained model\n", file=sys.stderr)
    lines: list[tuple[object, ...]] = []
    total = wrong = 0
    for name in dict.fromkeys(row["by"] for row in rows):
        own = [row for row in rows if row["by"] == name]
        said = [answer for row in own for answer in row.get("answers", ())]
        asked = [answer for answer in said if "too_short" not in answer]
        invalid = [answer for answer in asked if "invalid" in answer]
        refused, broken = (sum(row.get(key) is not None for row in own) for key in ("refused", "broken"))
        lengths = [answer["tokens"] for answer in asked if answer["limit"] == "512"] or [0]
        counts = (len(own), refused, broken, len(said), len(said) - len(asked), len(asked), len(invalid))
        lines.append((name, *counts, median(lengths)))
        total, wrong = total + len(asked) + broken, wrong + len(invalid) + broken
    head = ("tokenizer", "schemas", "refused", "broken", "asked", "limit too short", "answered", "invalid")
    table((*head, "tokens at 512"), lines)
    for row in rows:
        if "broken" in row:
            print(f"broken: {row['by']} {row['case']} {row['broken'][:400]}", file=sys.stderr)
        for answer in row.get("answers", ()):
            if "invalid" in answer:
                shown = json.dumps(answer, ensure_ascii=False)[:400]
                print(f"invalid: {row['by']} {row['case']} {shown}", file=sys.stderr)
    report(f"{part}_valid_answers", "share", (total - wrong) / total if total else None, 1.0, "the bar", False)


# --- instances -------------------------------------------------------------------------------------


def verdict(row: Row, case: Case) -> dict[str, int]:
    """One schema under one library: 1 where it is taken and correct, or refused as one that has no answer must be;
    and the wrong verdicts on its instances."""
    hopeless = case.refused is not None and not case.valid
    if row["refused"] is not None:
        return {"correct": int(hopeless), "taken": 0, "accepts": 0, "rejects": 0}
    count = len(case.valid)
    accepts = sum(taken is True for taken in row["verdicts"][count:])
    rejects = sum(taken is not True for taken in row["verdicts"][:count])
    correct = int(not (hopeless or accepts or rejects))
    return {"correct": correct, "taken": 1, "accepts": accepts, "rejects": rejects}


def instances(rows: Sequence[Row], cases: Sequence[Case]) -> None:
    by_name = {case.name: case for case in cases}
    rows = [row for row in rows if row["case"] in by_name]
    libraries = list(dict.fromkeys(row["by"] for row in rows))
    verdicts = {(row["by"], row["case"]): verdict(row, by_name[row["case"]]) for row in rows}
    print("## instances: schemas taken / fully correct\n", file=sys.stderr)
    families = sorted({case.family for case in cases})
    lines: list[list[object]] = [
        [family, len(names), *(_shares(verdicts, library, names) for library in libraries)]
        for family in families
        if (names := [case.name for case in cases if case.family == family])
    ]
    names = [case.name for case in cases]
    lines.append(["all", len(names), *(_shares(verdicts, library, names) for library in libraries)])
    table(("family", "schemas", *libraries), lines)
    totals = {library: _totals(rows, verdicts, library) for library in libraries}
    head = ("library", "schemas with a wrong accept", "wrong accepts", "wrong rejects", "broke")
    costs = ("mask µs p50", "p99", "mask + advance µs p50", "p99", "compile ms p50", "p99")
    counts = ("schemas_with_wrong_accepts", "wrong_accepts", "wrong_rejects", "broke")
    micros = ("mask_median", "mask_p99", "step_median", "step_p99", "compile_median", "compile_p99")
    table((*head, *costs), [[one, *(totals[one][key] for key in (*counts, *micros))] for one in libraries])
    refusals = [row for row in rows if row["by"] == "plume" and row["refused"]]
    for count in sorted(f"{row['case']}: {row['refused']}" for row in refusals):
        print(f"refused: {count[:300]}", file=sys.stderr)
    _compare(totals)


def _shares(verdicts: Mapping[tuple[str, str], Row], library: str, names: Sequence[str]) -> str:
    own = [verdicts[library, name] for name in names if (library, name) in verdicts]
    return f"{sum(one['taken'] for one in own)} / {sum(one['correct'] for one in own)}"


def _totals(rows: Sequence[Row], verdicts: Mapping[tuple[str, str], Row], library: str) -> dict[str, float]:
    own = [row for row in rows if row["by"] == library]
    counts: Counter[str] = Counter()
    for row in own:
        counts.update(verdicts[library, row["case"]])
    masks, steps = ([micros for row in own for micros in row[key]] for key in ("masks", "steps"))
    compiled = [1e3 * row["compile"] for row in own if row["compile"] is not None and row["refused"] is None]
    return {
        "schemas_fully_correct": round(counts["correct"] / len(own), 4),
        "schemas_with_wrong_accepts": sum(verdicts[library, row["case"]]["accepts"] > 0 for row in own),
        "wrong_accepts": counts["accepts"],
        "wrong_rejects": counts["rejects"],
        "broke": sum(taken is None for row in own for taken in row["verdicts"]),
        "mask_median": round(_quantile(masks, 0.5), 1),
        "mask_p99": round(_quantile(masks, 0.99), 1),
        "step_median": round(_quantile(steps, 0.5), 1),
        "step_p99": round(_quantile(steps, 0.99), 1),
        "compile_median": round(_quantile(compiled, 0.5), 2),
        "compile_p99": round(_quantile(compiled, 0.99), 2),
    }


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def _compare(totals: Mapping[str, dict[str, float]]) -> None:
    ours = totals.get("plume")
    if ours is None:
        return
    metrics = {
        "wrong_accepts": ("instances", True),
        "wrong_rejects": ("instances", True),
        "mask_median": ("µs", True),
        "mask_p99": ("µs", True),
        "step_median": ("µs", True),
        "step_p99": ("µs", True),
        "compile_median": ("ms", True),
        "compile_p99": ("ms", True),
        "schemas_fully_correct": ("share", False),
    }
    for metric, (unit, lower) in metrics.items():
        for library, theirs in totals.items():
            if library != "plume":
                report(metric, unit, ours[metric], theirs[metric], library, lower)
    report("wrong_accepts", "instances", ours["wrong_accepts"], 0, "the bar", True)
    report("schemas_fully_correct", "share", ours["schemas_fully_correct"], 0.87, "the bar", False)


def overhead(runs: Sequence[dict[str, float]]) -> None:
    """Tokens a second with a schema and without, in each run."""
    ours, theirs = (median(run[side] for run in runs) for side in ("plume", "peer"))
    report("tokens_per_second_with_schema_124m", "tokens/s", ours, theirs, "Plume without a schema", False, runs)
