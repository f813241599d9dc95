"""The command line: parse, call, print. Heavy modules load inside the commands that need them."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from emodarts.errors import AudioError, CorpusError, EmodartsError, RecipeError, list_lines

if TYPE_CHECKING:
    from emodarts.corpora import Corpus
    from emodarts.experiments.run import Options
    from emodarts.recipe import Recipe
    from emodarts.serving.predict import Answer

app = typer.Typer(
    name="emodarts",
    help="Find, train, judge and deploy compact speech emotion recognition networks.",
    epilog="Begin with:  emodarts demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_DEBUG = "--debug"
#: Unusable files that an error names one by one.
_NAMED = 100

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="YAML file, or the name of a built-in recipe.")
]
CorpusOption = Annotated[
    str, typer.Option("--corpus", help="Name of a reader; `emodarts corpora` lists them.")
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of the corpus, or the file that lists it.", metavar="PATH"),
]
ReaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--corpus-option",
        metavar="KEY=VALUE",
        help="Option of the reader, e.g. emotion=label names a column of a table.",
    ),
]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--labels",
        metavar="CLASSES",
        help="Classes in their order: a,b or NAME=a,b to merge labels (repeat it), or own, four, "
        "four-merged, five. [default: the recipe's, or own]",
    ),
]
StylesOption = Annotated[
    str | None,
    typer.Option("--styles", metavar="S,S", help="Styles of speech to keep, e.g. improvised."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Run directory. [default: runs/RECIPE-CORPUS]"),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Folds: speaker, session, groups:K, official[:PART], column, emobox, "
        "speaker-dependent[:K], or a folds.json. [default: the recipe's]",
    ),
]
OverlapOption = Annotated[
    bool,
    typer.Option(
        "--allow-speaker-overlap",
        help="Load published folds whose test speakers are also trained on; results say so.",
    ),
]
ProtocolOption = Annotated[
    str | None,
    typer.Option("--protocol", help="Inside a training fold: paper or full."),
]
FoldsOption = Annotated[
    str | None, typer.Option("--folds", help="Only these folds, e.g. 0,1.", metavar="K,K")
]
SeedsOption = Annotated[
    str | None, typer.Option("--seeds", help="Seeds, e.g. 0,1,2.", metavar="S,S")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the recipe, e.g. search.epochs=20."
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda or mps. [default: the recipe's]")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Of maps in search and training: fp32, or bf16 for GPUs. [default: the recipe's]",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Feature store. [default: the user's cache]"),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out where it was stopped.")
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave unusable audio out, and say so in the result.")
]
AllDataOption = Annotated[
    bool, typer.Option("--all-data", help="Test on nobody: for the model to deploy.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass(frozen=True)
class PrepareRequest:
    """A recipe, and the corpus that it shall be used on."""

    recipe: RecipeArgument
    corpus: CorpusOption
    root: RootOption = None
    reader: ReaderOption = None
    labels: LabelsOption = None
    styles: StylesOption = None
    changes: SetOption = None
    device: DeviceOption = None
    cache: CacheOption = None
    skip_bad: SkipBadOption = False
    as_json: JsonOption = False


@dataclass(frozen=True)
class RunRequest(PrepareRequest):
    """What run, search and train need besides."""

    split: SplitOption = None
    allow_speaker_overlap: OverlapOption = False
    protocol: ProtocolOption = None
    folds: FoldsOption = None
    seeds: SeedsOption = None
    precision: PrecisionOption = None
    out: OutOption = None
    resume: ResumeOption = False


def _with_request(
    request_type: type[PrepareRequest],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command every field of a request as an option in place of ``request``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        hints |= get_type_hints(request_type, include_extras=True)
        shared = list(inspect.signature(request_type).parameters.values())
        own = [p for p in inspect.signature(command).parameters.values() if p.name != "request"]

        def carry_out(**given: Any) -> None:
            request = request_type(**{p.name: given.pop(p.name) for p in shared})
            command(request, **given)

        parameters = [
            p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name]) for p in (*shared, *own)
        ]
        carry_out.__name__, carry_out.__doc__ = command.__name__, command.__doc__
        carry_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        carry_out.__annotations__ = {p.name: p.annotation for p in parameters}
        return carry_out

    return decorate


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"emodarts {version('emodarts')}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option(_DEBUG, help="Show the traceback of an error (legal anywhere).")
    ] = False,
) -> None:
    """Options of every command."""


@app.command(epilog="Example:  emodarts demo --out demo")
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run directory.")] = Path(
        "demo"
    ),
    resume: ResumeOption = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search, train, test, report and predict on a small generated corpus, in minutes.

    The corpus is a toy: its scores show that the pipeline works and say nothing of real speech.
    """
    from emodarts.corpora import load_corpus
    from emodarts.experiments.run import Options, run
    from emodarts.progress import for_terminal
    from emodarts.recipe import load_recipe
    from emodarts.reports.report import write_report
    from emodarts.reports.tables import result_table
    from emodarts.serving.predict import Model

    corpus = load_corpus("synthetic", None if cache is None else cache / "synthetic")
    result = run(
        load_recipe("demo"), corpus, out, Options(resume=resume, cache=cache), for_terminal()
    )
    report = write_report(out)
    fold = result["folds"][0]
    model = out / f"fold-{fold['fold']}" / f"seed-{result['seeds'][0]}" / "model"
    unseen = next(u for u in corpus if u.speaker in fold["test_speakers"])
    answers = Model.load(model).predict(unseen.path)
    if as_json:
        _print_json({**result, "prediction": answers[0].to_dict()})
        return
    typer.echo(result_table([result]))
    typer.echo(f"\nA file of an unseen speaker, in truth {unseen.label}:")
    print_answers = _table_printer(result["classes"])
    print_answers(answers)
    print_answers([])
    typer.echo(f"\nReport with the found cells: {report}")
    typer.echo(f"Hear a file of yours:        emodarts predict {model} FILE")


@app.command(epilog="Example:  emodarts corpora --corpus emodb --root emodb/wav --check")
def corpora(
    corpus: Annotated[str | None, typer.Option("--corpus", help="Name of a reader.")] = None,
    root: RootOption = None,
    reader: ReaderOption = None,
    labels: LabelsOption = None,
    styles: StylesOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Decode every file and list those that are unusable.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the readers, or what one of them finds: classes, speakers, durations, what it skips.

    Listing opens only the headers of audio files. With --check, unusable audio makes the exit
    code 2.
    """
    if corpus is None:
        if root is not None or reader or labels or styles or check:
            raise EmodartsError("every option but --json needs --corpus")
        _print_readers(as_json)
        return
    from emodarts.audio.survey import find_bad_audio, read_headers
    from emodarts.progress import for_terminal
    from emodarts.recipe import Recipe
    from emodarts.reports.corpus import corpus_page, describe_corpus

    progress = for_terminal()
    listed = _load_corpus(corpus, root, reader)
    if labels or styles:
        chosen = Recipe.from_dict({"labels": labels}, "--labels").labels if labels else None
        listed = listed.select(chosen, None if styles is None else styles.split(","))
    progress.start("headers", len(listed))
    headers = read_headers(listed.utterances, progress.advance)
    bad = []
    if check:
        progress.start("check", len(listed))
        bad = find_bad_audio(listed.utterances, progress.advance)
    if as_json:
        checked = {"bad": [{"name": n, "reason": r} for n, r in bad]} if check else {}
        _print_json({**describe_corpus(listed, headers), **checked})
    else:
        typer.echo(corpus_page(listed, headers))
    if bad:
        raise AudioError(
            f"{len(bad)} of {len(listed)} utterances have unusable audio:"
            + list_lines([reason for _, reason in bad], _NAMED)
        )


def _print_readers(as_json: bool) -> None:
    from emodarts.corpora import describe_readers, reader_options

    readers = describe_readers()
    if as_json:
        _print_json(
            {
                name: {"what": what, "options": reader_options(name)}
                for name, what in readers.items()
            }
        )
        return
    rows = [[name, what, " ".join(reader_options(name))] for name, what in readers.items()]
    typer.echo(_align([["corpus", "what it is", "options"], *rows]))


@app.command(
    epilog="Example:  emodarts run quick --corpus emodb --root emodb --seeds 0,1 --out runs/quick"
)
@_with_request(RunRequest)
def run(request: RunRequest) -> None:
    """Search, train and test in every fold with every seed; report the scores.

    Speakers of a test fold are never heard before the test. --resume continues a killed run to
    the result that it would have had.
    """
    from emodarts.experiments.run import Options

    options = Options(resume=request.resume, skip_bad=request.skip_bad, cache=request.cache)
    _carry_out(request, options)


@app.command(
    epilog="Example:  emodarts search quick --corpus emodb --root emodb --out runs/searched"
)
@_with_request(RunRequest)
def search(request: RunRequest, all_data: AllDataOption = False) -> None:
    """First half of a run: write and draw a genotype for every fold and seed, train nothing."""
    from emodarts.experiments.run import Options

    options = Options(
        resume=request.resume,
        skip_bad=request.skip_bad,
        cache=request.cache,
        train=False,
        all_data=all_data,
    )
    _carry_out(request, options)


@app.command(
    epilog="Example:  emodarts train quick --genotype genotype.json --all-data --corpus emodb "
    "--root emodb --out runs/deploy"
)
@_with_request(RunRequest)
def train(
    request: RunRequest,
    genotype: Annotated[
        Path | None,
        typer.Option(
            "--genotype",
            metavar="FILE",
            help="Train these cells; else those of `search` in --out, with --resume.",
        ),
    ] = None,
    all_data: AllDataOption = False,
) -> None:
    """Second half of a run: train and test found cells, or train the model to deploy."""
    from emodarts.experiments.run import Options
    from emodarts.space.genotype import Genotype

    options = Options(
        resume=request.resume,
        skip_bad=request.skip_bad,
        cache=request.cache,
        search=False,
        genotype=None if genotype is None else Genotype.load(genotype),
        all_data=all_data,
    )
    _carry_out(request, options)


@app.command(
    epilog="Example:  emodarts predict runs/x/fold-0/seed-0/model talk.mp3 --window 4 --hop 2 "
    "--format json"
)
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a trained model.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE...]", help="Audio files, or folders of them."),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option("--corpus", help="Hear the utterances of a corpus, labelled or not."),
    ] = None,
    root: RootOption = None,
    reader: ReaderOption = None,
    part: Annotated[
        str | None,
        typer.Option("--part", help="Only this part of the corpus' own split, e.g. Test3."),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option("--window", help="Answer for every stretch of this many seconds."),
    ] = None,
    hop: Annotated[
        float | None, typer.Option("--hop", help="Seconds between windows. [default: window]")
    ] = None,
    style: Annotated[
        Literal["table", "json", "csv"],
        typer.Option("--format", help="json prints one object a line."),
    ] = "table",
) -> None:
    """Name the emotion in audio files of any format, rate and length.

    Files that cannot be heard are named on standard error, the others are answered, and the
    exit code is 2.
    """
    from emodarts.serving.predict import Model, check_windows, find_audio

    check_windows(window, hop)
    stretches: list[tuple[Path, float, float | None]] = []
    faults: list[EmodartsError] = []
    for path in files or ():
        try:
            stretches += [(file, 0.0, None) for file in find_audio(path)]
        except EmodartsError as error:
            faults.append(error)
    if corpus is not None:
        stretches += _stretches(_load_corpus(corpus, root, reader), part)
    elif root is not None or reader or part is not None:
        raise EmodartsError("--root, --corpus-option and --part need --corpus")
    elif not files:
        raise EmodartsError("nothing to hear; legal: FILE..., or --corpus with its --root")
    loaded = Model.load(model)
    print_answers = _PRINTERS[style](loaded.classes)
    for fault in faults:
        typer.echo(f"error: {fault}", err=True)
    heard, bad = 0, len(faults)
    for file, start, end in stretches:
        try:
            print_answers(loaded.predict(file, window, hop, start=start, end=end))
            heard += 1
        except EmodartsError as error:
            bad += 1
            typer.echo(f"error: {error}", err=True)
    print_answers([])
    if bad and heard:
        typer.echo(f"error: {bad} could not be heard; the other {heard} are answered", err=True)
    if bad:
        raise typer.Exit(2)


def _stretches(corpus: Corpus, part: str | None) -> list[tuple[Path, float, float | None]]:
    """Where the utterances of a corpus, or of one part of it, are heard."""
    chosen = [u for u in corpus if part is None or (u.split or "").casefold() == part.casefold()]
    if not chosen:
        parts = ", ".join(corpus.count("split")) or "none"
        raise CorpusError(f"corpus {corpus.name!r} has no part {part!r}; its parts: {parts}")
    return [(u.path, u.start, u.end) for u in chosen]


@app.command(
    epilog="Example:  emodarts prepare emodarts --corpus msp-podcast --root msp --device cuda"
)
@_with_request(PrepareRequest)
def prepare(request: PrepareRequest) -> None:
    """Compute and store the features of a corpus, so that runs begin at once.

    Memory does not grow with the corpus. Stopped in the middle, the same command goes on.
    """
    from emodarts.experiments.dataset import prepare
    from emodarts.progress import for_terminal
    from emodarts.runtime import configure

    recipe = _load_recipe(request)
    corpus = _load_corpus(request.corpus, request.root, request.reader)
    facts = prepare(
        recipe,
        corpus,
        configure(recipe.compute),
        for_terminal(),
        cache=request.cache,
        skip_bad=request.skip_bad,
    )
    if request.as_json:
        _print_json(facts)
        return
    left = f", {len(facts['bad'])} left out" if facts["bad"] else ""
    versions = f" in {facts['versions']} versions" if facts["versions"] > 1 else ""
    typer.echo(f"{facts['utterances']} utterances{versions}{left}, stored in {facts['store']}")


@app.command(epilog="Example:  emodarts report runs/searched runs/random")
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories; several are compared.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run (Markdown and plots), or compare several runs."""
    from emodarts.reports.report import compare, load_result

    results = [load_result(run) for run in runs]
    text = compare(runs) if len(runs) > 1 else "\n".join(_report_lines(runs[0], results[0]))
    if as_json:
        _print_json(results[0] if len(results) == 1 else results)
    else:
        typer.echo(text)


def _load_recipe(request: PrepareRequest) -> Recipe:
    from emodarts.recipe import load_recipe

    values: dict[str, object] = {
        "labels": request.labels,
        "styles": None if request.styles is None else request.styles.split(","),
        "compute.device": request.device,
    }
    if isinstance(request, RunRequest):
        values |= {
            "evaluation.split": request.split,
            "evaluation.allow_speaker_overlap": request.allow_speaker_overlap or None,
            "evaluation.protocol": request.protocol,
            "evaluation.folds": _numbers("--folds", request.folds),
            "evaluation.seeds": _numbers("--seeds", request.seeds),
            "compute.precision": request.precision,
        }
    given = [f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None]
    return load_recipe(request.recipe, [*(request.changes or ()), *given])


def _numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(
            f"{option} {text!r}; legal: numbers with commas between, e.g. 0,1"
        ) from None


def _load_corpus(name: str, root: Path | None, given: Sequence[str] | None) -> Corpus:
    from emodarts.corpora import load_corpus

    options = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or key in options:
            raise CorpusError(f"--corpus-option {text!r}; legal: KEY=VALUE, each KEY once")
        options[key] = value
    return load_corpus(name, root, **options)


def _carry_out(request: RunRequest, options: Options) -> None:
    from emodarts.experiments.run import run
    from emodarts.progress import for_terminal

    recipe = _load_recipe(request)
    corpus = _load_corpus(request.corpus, request.root, request.reader)
    out = request.out or Path("runs") / f"{recipe.name}-{request.corpus}"
    result = run(recipe, corpus, out, options, for_terminal())
    if "trials" in result:
        lines = [_draw_trial(out, trial, options) for trial in result["trials"]]
    else:
        lines = _report_lines(out, result)
    if request.as_json:
        _print_json(result)
    else:
        typer.echo("\n".join(lines))


def _draw_trial(out: Path, trial: dict[str, Any], options: Options) -> str:
    """Draw a trial's cells; return the path of what it has made."""
    from emodarts.reports.report import draw_cells

    place = out if options.all_data else out / f"fold-{trial['fold']}"
    folder = place / f"seed-{trial['seed']}"
    draw_cells(folder)
    return str(folder / ("model" if options.train else "genotype.json"))


def _report_lines(out: Path, result: dict[str, Any]) -> list[str]:
    """Write a run's report; return the table and the report's path to print."""
    from emodarts.reports.report import write_report
    from emodarts.reports.tables import result_table

    path = write_report(out)
    return [result_table([result]), "", f"Report: {path}"]


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


# A printer takes the answers of one file after another, and an empty list at the end.
_Printer = Callable[[Sequence["Answer"]], None]


def _table_printer(classes: Sequence[str]) -> _Printer:
    """Everything at the end: only then is the width of each column known."""
    rows = [["file", "start", "end", "label", *classes]]

    def print_answers(answers: Sequence[Answer]) -> None:
        for a in answers:
            shown = [f"{p:.3f}" for p in a.probabilities.values()]
            rows.append([a.file, f"{a.start:.2f}", f"{a.end:.2f}", a.label, *shown])
        if not answers and len(rows) > 1:
            typer.echo(_align(rows))

    return print_answers


def _json_printer(classes: Sequence[str]) -> _Printer:
    def print_answers(answers: Sequence[Answer]) -> None:
        for a in answers:
            typer.echo(json.dumps(a.to_dict(), ensure_ascii=False))

    return print_answers


def _csv_printer(classes: Sequence[str]) -> _Printer:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["file", "start", "end", "label", *(f"p_{name}" for name in classes)])

    def print_answers(answers: Sequence[Answer]) -> None:
        for a in answers:
            writer.writerow([a.file, a.start, a.end, a.label, *a.probabilities.values()])

    return print_answers


_PRINTERS = {"table": _table_printer, "json": _json_printer, "csv": _csv_printer}


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to equal width, two spaces between."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors of the project's own type end with exit code 2."""
    # Threads that spin long while they wait cost nine tenths of the time as soon as another
    # process wants a core; threads that never spin triple the time of a small LSTM.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "300")
    from emodarts.fast import keep_freed_memory

    keep_freed_memory()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in given
    try:
        app(args=[a for a in given if a != _DEBUG], prog_name="emodarts")
    except EmodartsError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
