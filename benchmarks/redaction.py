"""Precision and recall of redaction on the labelled set in tests/redaction.

    python benchmarks/redaction.py

The set is written by hand, in French and English, with invented people and valid check digits. A span counts when its
kind and both ends are right. Prints one JSON line for each part and kind, the structured kinds together last.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from redaction_scores import PARTS, scores


def main() -> None:
    for part in PARTS:
        counts = scores(part)
        for name, kinds in {**{kind: [kind] for kind in counts.kinds}, "structured": counts.structured}.items():
            right, missed, wrong = (sum(one[k] for k in kinds) for one in (counts.right, counts.missed, counts.wrong))
            line = {"bench": "redaction", "part": part, "kind": name, "labels": right + missed, "wrong": wrong}
            figures = {"recall": counts.recall(*kinds), "precision": counts.precision(*kinds), "f1": counts.f1(*kinds)}
            print(json.dumps({**line, **{key: round(value, 3) for key, value in figures.items()}}))


if __name__ == "__main__":
    main()
