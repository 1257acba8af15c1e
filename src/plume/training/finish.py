"""After the last step: the result is saved, opened again, proven, scored beside its baseline, reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import torch

from plume.evaluation.diagnose import diagnose
from plume.evaluation.report import write_report
from plume.evaluation.results import result, rounded
from plume.events import Finished
from plume.files import atomic_directory, write_atomic
from plume.generation.engine import Engine
from plume.models.bundle import Bundle, load, save
from plume.models.catalog import LIMITS
from plume.runs import Run
from plume.training.card import model_card
from plume.training.checkpoint import Progress, at_step, load_weights
from plume.training.devices import move
from plume.training.measure import bigram_entropy, forgetting, measure, sample_text
from plume.training.prepare import Prepared
from plume.training.proof import prove_reloaded, prove_weights


def finish(
    prepared: Prepared, run: Run, progress: Progress, device: torch.device, elapsed: Callable[[], float]
) -> Finished:
    """Turn the best weights into the run's model, with proof on the CPU, scores on `device`, and a report.

    Everything may be done again, so a run killed in here resumes; the status `finished` is written last.
    Raises RunFailed when the proof fails.
    """
    reloaded = _publish(prepared, run, progress)
    measured = measure(prepared, reloaded, device)
    for kind, rows in measured.rows.items():
        compared = measured.baseline_rows[kind]
        run.write_eval(kind, result(str(run.path), prepared.recipe.data, rows, compared, measured.baseline_name))
    forgot = forgetting(prepared, reloaded)
    run.update(forgetting=asdict(forgot) if forgot else None)
    findings = tuple(diagnose(run))
    write_atomic(run.model / "README.md", model_card(prepared, measured.scores))
    finished = Finished(
        step=progress.step,
        best_step=progress.best_step,
        model=run.model,
        report=run.report_file,
        seconds=elapsed(),
        scores=measured.scores,
        baseline=measured.baseline,
        sample=sample_text(Engine(reloaded), prepared) if prepared.is_text else None,
        bigram_entropy=bigram_entropy(prepared) if prepared.is_text else None,
        limit=LIMITS.get(prepared.recipe.model),
        findings=findings,
        forgetting=forgot,
    )
    _record(run, finished)
    return finished


def _publish(prepared: Prepared, run: Run, progress: Progress) -> Bundle:
    """Save the best weights as a model directory, and open it as anybody would."""
    move(prepared.bundle.model, torch.device("cpu"))
    load_weights(at_step(run.checkpoints, progress.best_step), prepared.bundle.model)
    prove_weights(prepared)
    with atomic_directory(run.model) as building:
        save(prepared.bundle, building, model_card(prepared, {}))
        prove_reloaded(prepared, prepared.bundle, load(building))
    return load(run.model)


def _record(run: Run, finished: Finished) -> None:
    facts = {
        "status": "finished",
        "train_seconds": round(finished.seconds, 2),
        "best_step": finished.best_step,
        "scores": {kind: rounded(values) for kind, values in finished.scores.items()},
        "result_findings": [f"{found.code} {found.message}" for found in finished.findings],
        "bigram_entropy": finished.bigram_entropy,
        "limit": finished.limit,
    }
    write_report(run, facts)
    run.update(**facts)
