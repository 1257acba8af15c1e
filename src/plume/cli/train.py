"""`plume train`: from a data file to a proven model directory."""

from __future__ import annotations

import signal
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from plume.cli import choices, options, output
from plume.cli.costs import lines
from plume.errors import UserError
from plume.evaluation.results import said_forgetting
from plume.events import Evaluated, Finished, RolledBack, Saved, Started, Step, Stopped, TrainEvent
from plume.recipe import Recipe, load_recipe, parse_recipe, parse_settings, shipped_recipes

EXAMPLES = (
    "Examples: plume train qa.jsonl · plume train qa.jsonl --model ./smol --set learning_rate=2e-4 · "
    "plume train book.txt --model bigram · plume train --resume --output-dir runs/qa"
)


def train(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Training rows or text (see `plume check`).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="gpt, gru, bigram from scratch (gpt:small, gpt:3M), or a model to fine-tune (default: gpt).",
        ),
    ] = None,
    eval_data: Annotated[str | None, typer.Option(metavar="FILE", help="Evaluation rows instead of a split.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE|NAME", help="A recipe.yaml, or a shipped recipe, to start from.")
    ] = None,
    list_recipes: Annotated[
        bool, typer.Option("--list-recipes", help="Print the shipped recipes and what each is for.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A recipe key (docs/recipe.md); may be given several times."),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run directory (default: runs/DATE-TIME-NAME).")
    ] = None,
    split_documents: options.SplitDocuments = False,
    prompt_column: options.PromptColumn = None,
    completion_column: options.CompletionColumn = None,
    query: options.Query = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output-dir.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Train although checks found errors.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON event a line on stdout.")] = False,
) -> None:
    """Check the data, split it without leaks, train, and prove the result on generated answers.

    What the recipe leaves open is chosen from the data, printed, and written to the run's recipe.yaml.
    Exit code 0 when done, 1 when the run failed, 2 for a mistake in data or request, 130 after Ctrl-C.
    """
    if list_recipes:
        _show_recipes()
        return
    given = parse_settings(settings or [])
    named: dict[str, Any] = {
        "data": data,
        "model": model,
        "eval_data": eval_data,
        "prompt_column": prompt_column,
        "completion_column": completion_column,
        "query": query,
        "split_documents": split_documents or None,
    }
    given |= {key: value for key, value in named.items() if value is not None}
    if resume:
        path = _run_to_resume(output_dir, recipe, given)
        wanted = load_recipe(path / "recipe.yaml")
    else:
        wanted = wanted_recipe(recipe, given)
        path = output_dir or new_directory(wanted)
    _follow(wanted, path, resume=resume, force=force, json=json)


def _show_recipes() -> None:
    for name, purpose in shipped_recipes().items():
        output.write(f"{name:<14} {purpose}")


def wanted_recipe(file: Path | None, given: dict[str, Any]) -> Recipe:
    """The recipe that a file and the settings beside it ask for. Raises UserError."""
    base = load_recipe(file).model_dump() if file else {}
    if "num_train_epochs" in given and "max_steps" not in given:
        base.pop("max_steps", None)  # the wish counts, not what an earlier run made of another
    if "model_size" in given or ":" in str(given.get("model", "")):
        for key in ("model_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            base.pop(key, None)
    if given.get("learning_rate") == "auto":
        base.pop("muon_learning_rate", None)
    recipe = parse_recipe({**base, **given}, "--set")
    if not recipe.data:
        raise UserError("no training data was named", "plume train DATA, or a --recipe that has the key data")
    return recipe


def _run_to_resume(output_dir: Path | None, recipe: Path | None, given: dict[str, Any]) -> Path:
    """Everything comes from the run's own recipe: a contradicting wish is refused, not ignored."""
    if output_dir is None:
        raise UserError("--resume needs --output-dir", "plume train --resume --output-dir runs/NAME")
    if not (output_dir / "recipe.yaml").is_file():
        raise UserError(
            f"{output_dir} is not a run: it has no recipe.yaml", "start one: plume train DATA --output-dir DIR"
        )
    if recipe is not None:
        raise UserError("--resume takes everything from the run's own recipe", "leave --recipe out")
    kept = load_recipe(output_dir / "recipe.yaml").model_dump()
    wished = parse_recipe({**kept, **given}, "--set").model_dump()
    for key, value in wished.items():
        if value != kept[key]:
            raise UserError(
                f"{key}={value} contradicts the run's recipe, which has {key}={kept[key]}",
                "leave it out to resume, or start a new run in another --output-dir",
            )
    return output_dir


def new_directory(recipe: Recipe, suffix: str = "") -> Path:
    """A free directory under runs/, named after the time and the data."""
    stem = f"{datetime.now():%Y-%m-%d-%H%M}-{Path(recipe.data).stem}{suffix}"
    taken = (Path("runs") / f"{stem}{again}" for again in ("", *(f"-{number}" for number in range(2, 1000))))
    return next(path for path in taken if not path.exists())


def _follow(recipe: Recipe, path: Path, *, resume: bool, force: bool, json: bool) -> None:
    from plume.training.loop import train as run_training

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[speed]} tokens/s"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    finished = False
    signal.signal(signal.SIGTERM, _leave)
    with Progress(*columns, console=output.err, transient=True, disable=json or not output.main_process()) as bar:
        task = bar.add_task("training", total=None, loss="…", speed="…")
        with closing(run_training(recipe, path, resume=resume, force=force, probe=True)) as events:
            try:
                for event in events:
                    finished |= isinstance(event, Finished)
                    if isinstance(event, Step):
                        speed = f"{event.tokens / event.seconds:,.0f}"
                        bar.update(
                            task, completed=event.step, total=event.max_steps, loss=f"{event.loss:.3f}", speed=speed
                        )
                    if json:
                        _print_json(event, recipe)
                    else:
                        _show(event)
            except (KeyboardInterrupt, SystemExit):
                bar.stop()
                if path.exists() and output.main_process():
                    output.note(f"continue with: plume train --resume --output-dir {path}")
                raise
    if not finished and output.main_process():
        output.note(f"{path} is already finished: nothing to do")


def _leave(*_: object) -> None:
    """A job that is told to end leaves as after Ctrl-C: recorded, and with a word on how to go on."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise SystemExit(128 + signal.SIGTERM)


def _print_json(event: TrainEvent, recipe: Recipe) -> None:
    if isinstance(event, Started):
        output.show_findings(event.findings)
    elif not isinstance(event, Step) or event.step % recipe.logging_steps == 0 or event.step in (1, event.max_steps):
        output.write_json(output.event_json(event))


def _show(event: TrainEvent) -> None:
    match event:
        case Started():
            _show_start(event)
        case Evaluated():
            best = "  (best so far)" if event.best else ""
            output.note(f"step {event.step:>5}  {_label(event.kind)}: {shown_scores(event.scores)}{best}")
            output.note(f"            {_one_line(event.sample)}")
        case RolledBack():
            output.note(f"step {event.step:>5}  back to step {event.to_step}: {event.reason}")
        case Stopped():
            output.note(f"step {event.step:>5}  stopped early: {event.reason}")
        case Finished():
            _show_result(event)
        case Step() | Saved():
            pass


def _show_start(event: Started) -> None:
    output.show_findings(event.findings)
    output.note(f"run       {event.path}")
    output.note(f"split     {event.split}")
    size = f"{event.parameters:,} parameters, {event.trained_tokens:,} trained tokens an epoch"
    output.note(f"model     {event.recipe.model}, {size}")
    if event.recipe.replay:
        share = event.recipe.replay_ratio or 0.0
        mixed = f"{share:.0%} of the trained tokens drawn from it" if share else "nothing drawn from it"
        output.note(f"replay    {event.recipe.replay}: {mixed}, a part held back measures forgetting")
    for number, line in enumerate(choices.lines(event.choices)):
        output.note(f"{'chosen' if not number else '':<9} {line}")
    if event.preflight:
        for number, line in enumerate(lines(event.preflight)):
            output.note(f"{'preflight' if not number else '':<9} {line}")
    if event.resumed_from:
        output.note(f"resumed   after step {event.resumed_from}")


def _show_result(event: Finished) -> None:
    for kind, scores in event.scores.items():
        output.write(f"{_label(kind):<10} {shown_scores(scores)}")
        output.write(f"{'  baseline':<10} {shown_scores(event.baseline[kind])}")
    for finding in event.findings:
        output.show_finding(output.err, finding)
    if event.bigram_entropy is not None:
        output.write(
            f"bigram entropy of the training text: {event.bigram_entropy:.4f} nats a token, the limit of a bigram"
        )
    if event.forgetting:
        output.write(f"forgetting {said_forgetting(asdict(event.forgetting))}")
    if event.limit:
        output.write(f"limit      {event.limit}")
    if event.sample:
        output.write(f"\n{event.sample}\n")
    output.write(f"best step  {event.best_step} of {event.step}, {event.seconds:.0f} s")
    output.write(f"model      {event.model}")
    output.write(f"report     {event.report}")


def _label(kind: str) -> str:
    return "held out" if kind == "held_out" else "recall"


def shown_scores(scores: Any) -> str:
    """The scores that rows can have, in a line."""
    rates = {"exact_match", "token_f1", "json_valid", "schema_valid", "stop_rate"}
    shown = [
        f"{name} {value:.1%}" if name in rates else f"{name} {value:.3f}"
        for name, value in scores.items()
        if value is not None
    ]
    return "  ".join(shown)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else line[:159] + "…"
