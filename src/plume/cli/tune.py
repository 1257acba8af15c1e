"""`plume tune`: which settings answer best on this data?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from plume.cli import output
from plume.cli.train import new_directory, shown_scores, wanted_recipe
from plume.errors import UserError
from plume.events import Evaluated, Step
from plume.recipe import Recipe, parse_settings

if TYPE_CHECKING:
    from plume.training.search import Choices, Range, Trial, Tuned, TuneEvent

EXAMPLES = (
    "Examples: plume tune qa.jsonl · plume tune qa.jsonl --n-trials 40 --timeout 3600 · "
    "plume tune qa.jsonl --model ./smol --search learning_rate=1e-5:1e-3:log --search adam_beta2=0.95,0.99 · "
    "plume tune --resume --output-dir runs/qa-tune"
)

Searched = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUES",
        help="A recipe key to search: key=low:high, key=low:high:log or key=a,b,c (default: learning rate, batch "
        "size, weight decay and, from scratch, dropout). May be given several times.",
    ),
]


def tune(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Training rows or text (see `plume check`).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR", help="gpt, gru or bigram from scratch, or one to fine-tune (default: gpt)."),
    ] = None,
    eval_data: Annotated[str | None, typer.Option(metavar="FILE", help="Evaluation rows instead of a split.")] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="A recipe.yaml to start from.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A recipe key to hold fixed; may be given several times."),
    ] = None,
    search: Searched = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the search is kept (default: runs/DATE-TIME-NAME-tune)."),
    ] = None,
    n_trials: Annotated[int | None, typer.Option(min=1, help="Runs to train (default: 20).")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Begin no new trial after so many seconds.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the search in --output-dir.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON event a line on stdout.")] = False,
) -> None:
    """Train several runs with different settings and keep the best: its run, and its recipe as best-recipe.yaml.

    Better is more exact answers on held-out rows, then fewer bits per byte; for text, fewer bits per byte. The first
    trial is what Plume chooses by itself; runs that fall behind are stopped early. Needs Optuna (extra `tune`).
    Exit code 0 when done, 1 when no trial could be finished, 2 for a mistake in data or request, 130 after Ctrl-C.
    """
    from plume.training.search import parse_search

    given = parse_settings(settings or [])
    named = {"data": data, "model": model, "eval_data": eval_data}
    fixed = tuple(given)
    given |= {key: value for key, value in named.items() if value is not None}
    if resume:
        path = _search_to_resume(output_dir, bool(given or search or recipe))
        wanted = Recipe()
    else:
        wanted = wanted_recipe(recipe, given)
        path = output_dir or new_directory(wanted, "-tune")
    _follow(
        path,
        json,
        recipe=wanted,
        search=parse_search(search or []) or None,
        fixed=fixed,
        n_trials=n_trials,
        timeout=timeout,
        resume=resume,
    )


def _search_to_resume(output_dir: Path | None, others: bool) -> Path:
    if output_dir is None:
        raise UserError("--resume needs --output-dir", "plume tune --resume --output-dir runs/NAME")
    if others:
        raise UserError(
            "--resume takes everything from the search's own tune.json", "leave all out but --n-trials and --timeout"
        )
    return output_dir


def _follow(path: Path, json: bool, **request: Any) -> None:
    from plume.training.tune import tune as run_search

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[best]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output.err, transient=True, disable=json) as bar:
        task = bar.add_task("searching", total=None, best="")
        with closing(run_search(output_dir=path, **request)) as events:
            try:
                for event in events:
                    _advance(bar, task, event)
                    if json:
                        _print_json(event)
                    else:
                        _show(event)
            except KeyboardInterrupt:
                bar.stop()
                if path.exists():
                    output.note(f"continue with: plume tune --resume --output-dir {path}")
                raise


def _advance(bar: Progress, task: TaskID, event: TuneEvent) -> None:
    """The bar counts trials, and the steps of the one that runs as a part of it."""
    from plume.training.search import Proposed, Search, Training, Trial

    match event:
        case Search():
            bar.update(task, total=event.n_trials, completed=event.done)
        case Proposed():
            bar.update(task, description=f"trial {event.trial}", completed=event.trial)
        case Training(trial, Step() as step):
            bar.update(task, completed=trial + step.step / max(1, step.max_steps))
        case Trial():
            bar.update(task, completed=event.trial + 1)
            if event.best:
                bar.update(task, best=f"best: {_score(event)} (trial {event.trial})")


def _print_json(event: TuneEvent) -> None:
    from plume.training.search import Search, Training

    if isinstance(event, Search):
        output.show_findings(event.findings)
    if not isinstance(event, Training):
        output.write_json(output.event_json(event))
    elif isinstance(event.event, Evaluated):
        output.write_json({"trial": event.trial, **output.event_json(event.event)})


def _show(event: TuneEvent) -> None:
    from plume.training.search import Proposed, Search, Trial, Tuned

    match event:
        case Search():
            output.show_findings(event.findings)
            output.note(
                f"search    {event.path}, {event.n_trials} trials" + (f", {event.done} done" * bool(event.done))
            )
            for key, values in event.search.items():
                output.note(f"          {key}: {_values(values)}")
        case Proposed():
            output.note(f"trial {event.trial:>3}  {_params(event.params)}")
        case Trial():
            best = "  (best so far)" if event.best else ""
            output.note(f"           {event.state}: {event.reason or shown_scores(event.scores)}{best}")
        case Tuned():
            _show_result(event)


def _show_result(event: Tuned) -> None:
    keys = list(event.trials[0].params)
    table = Table(box=None, pad_edge=False)
    for name in ("trial", "state", "score", *keys):
        table.add_column(name, justify="left" if name == "state" else "right", overflow="fold", no_wrap=name == "score")
    for trial in sorted(event.trials, key=lambda trial: (trial.value is None, -(trial.value or 0.0), trial.trial)):
        cells = [str(trial.trial), trial.state, _score(trial), *(_value(trial.params[key]) for key in keys)]
        table.add_row(*cells, style="bold" if trial.best else None)
    output.out.print(table, markup=False)
    if event.importances:
        output.write("\nmattered   " + ", ".join(f"{key} {share:.0%}" for key, share in event.importances.items()))
    output.write(f"\n{event.note}\n")
    output.write(f"best run   {event.best_run}")
    output.write(f"recipe     {event.best_recipe}")
    output.write(f"report     {event.report}")


def _score(trial: Trial) -> str:
    """What the search goes by, as far as the trial has it."""
    bits = trial.scores.get("bits_per_byte")
    if bits is None:
        return ""
    rate = trial.scores.get("exact_match")
    return f"{bits:.4f} bits/byte" if rate is None else f"{rate:.1%}, {bits:.4f} bits/byte"


def _params(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in params.items())


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _values(values: Range | Choices) -> str:
    from plume.training.search import Choices

    if isinstance(values, Choices):
        return ", ".join(map(_value, values.values))
    return f"{_value(values.low)} to {_value(values.high)}" + " (logarithmic)" * values.log
