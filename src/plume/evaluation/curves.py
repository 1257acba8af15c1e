"""The curves of a run, from what it has logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plume.evaluation.charts import Row, number, percent, plot, points
from plume.evaluation.words import KINDS, METRICS
from plume.recipe import Recipe

_LOG_RATIO = 100.0  # a loss that falls further than this is drawn on a logarithmic scale
_PLOTTED_RATES = ("exact_match", "stop_rate", "json_valid", "schema_valid")


def run_plots(info: Row, recipe: Recipe, metrics: Sequence[Row]) -> list[dict[str, Any]]:
    """The curves that have points, as the page's script draws them."""
    kinds = {row["kind"]: KINDS.get(row["kind"], str(row["kind"])) for row in metrics if "kind" in row}
    evaluated = {label: [row for row in metrics if row.get("kind") == kind] for kind, label in kinds.items()}
    limit = info.get("bigram_entropy")
    losses = {"training loss": points(metrics, "train_loss")}
    losses |= {f"{label} loss": points(rows, "loss") for label, rows in evaluated.items()}
    rates = {
        METRICS[name][0] + (f" ({label})" if len(evaluated) > 1 else ""): points(rows, name)
        for label, rows in evaluated.items()
        for name in _PLOTTED_RATES
    }
    values = [value for points in losses.values() for _, value in points]
    log = bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_RATIO
    loss_note = "Nats per token; lower is better." + (" The scale is logarithmic." if log else "")
    if limit is not None:
        loss_note += f" Bigram entropy, {limit:.3f}: a table of token pairs can do no better on the training text."
    asked = f"{' and '.join(evaluated).capitalize()}: at most {recipe.eval_samples} questions at each evaluation."
    kept = [{"at": info["best_step"], "label": "weights kept"}] if info.get("best_step") else []
    rate = {"learning rate": points(metrics, "learning_rate")}
    plots = [
        plot("Loss", loss_note, losses, number, log=log, limit=limit, marks=kept + _again(info)),
        plot("Answers", asked, rates, percent, percent=True, marks=kept),
        plot("Learning rate", "Size of the steps.", rate, number, colour=2, marks=kept),
        *_range_test(info),
    ]
    return [plot for plot in plots if plot["series"]]


def _again(info: Row) -> list[dict[str, Any]]:
    """Where a run that diverged went back to."""
    back = info.get("rolled_back")
    return [{"at": back["to_step"], "label": "again from here, slower"}] if back else []


def _range_test(info: Row) -> list[dict[str, Any]]:
    """The losses of the trial steps that a learning rate was chosen by; nothing where one was given."""
    tried = [(rate, loss) for rate, loss in info.get("learning_rate_range_test", ())]
    if not tried:
        return []
    chosen = info["choices"]["learning_rate"]
    note = f"Trial steps on a copy, each at a larger rate. Chosen: {chosen['value']:g}, {chosen['reason']}."
    marks = [{"at": chosen["value"], "label": "chosen"}]
    curve = {"loss": tried}
    return [plot("Learning rate range test", note, curve, number, x="rate", log_x=True, colour=3, marks=marks)]
