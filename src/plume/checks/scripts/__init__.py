"""D7: reads other people's training scripts, `.py` and `.ipynb`. Nothing of them is run or imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from plume.checks.scripts import answers, conversation, labels, names, padding, runs, safety
from plume.checks.scripts.facts import gather
from plume.checks.scripts.reading import Script, read_script
from plume.checks.scripts.rules import RELATED, RULES, Found, Rule
from plume.types import Finding, Source

__all__ = ["RULES", "answers", "conversation", "examine_script", "labels", "names", "padding", "runs", "safety"]


def examine_script(path: str) -> Iterator[Finding]:
    """What is wrong with a training script, in the order of its lines.

    For a notebook the line is that of the `.ipynb` file, and the message names the cell and the line in it.
    Raises UserError when the file cannot be read.
    """
    script = read_script(path)
    found = [
        Finding("D718", "error", Source(path, problem.line), problem.message, problem.hint)
        for problem in script.problems
    ]
    try:
        facts = gather(script.tree, script.whole)
        for rule in RULES:
            if script.whole or not rule.whole:
                found += [_finding(script, rule, one) for one in rule.check(facts)]
    except RecursionError:
        message = "the code is nested too deeply to be examined"
        found.append(Finding("D718", "error", Source(path, 1), message, "split long expressions"))
    yield from sorted(found, key=lambda finding: (finding.source.line or 0, finding.source.column or 0, finding.code))


def _finding(script: Script, rule: Rule, found: Found) -> Finding:
    source, label = _place(script, found.node)
    related = tuple(_place(script, node)[0] for node in found.related)
    line = str(related[0].line) if related else ""
    message = label + found.message.replace(RELATED, line)
    return Finding(rule.code, rule.severity, source, message, found.hint, related, found.quote)


def _place(script: Script, node: ast.AST) -> tuple[Source, str]:
    number = min(max(getattr(node, "lineno", 1), 1), len(script.places))
    line, label = script.places[number - 1]
    return Source(script.file, line), label
