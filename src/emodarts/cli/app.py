"""The commands. Each loads what it needs when it is called, so that help answers at once."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emodarts.cli.grid import grid
from emodarts.cli.options import (
    AllDataOption,
    CacheOption,
    CorpusOption,
    HeadroomRequest,
    HopOption,
    JsonOption,
    LabelsOption,
    ModelArgument,
    PrepareRequest,
    ReaderOption,
    RecipeCommand,
    ResumeOption,
    RootOption,
    RunRequest,
    SearchRequest,
    SkipBadOption,
    StylesOption,
    load_requested_recipe,
    names,
    with_request,
)
from emodarts.cli.printing import (
    Stopped,
    Style,
    explained_stop,
    print_answers,
    print_error,
    print_json,
    print_models,
    print_notice,
    print_readers,
    print_recipes,
    print_warning,
)
from emodarts.cli.serve import serve
from emodarts.errors import (
    AudioError,
    CorpusError,
    EmodartsError,
    RunError,
    list_lines,
    list_skipped,
    name_once,
    shown,
)
from emodarts.fast import keep_freed_memory
from emodarts.progress import show_warnings_plainly

if TYPE_CHECKING:
    from emodarts.corpora import Corpus
    from emodarts.experiments.plan import Options
    from emodarts.progress import Progress
    from emodarts.serving.model import Answer

app = typer.Typer(
    name="emodarts",
    help="Find, train, judge and deploy compact speech emotion recognition networks.",
    epilog="Begin with:  emodarts demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_DEBUG = "--debug"
#: What typer raises for wrong options and arguments; it has no public name.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
#: Unusable files that an error names one by one.
_NAMED = 100


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"emodarts {version('emodarts')}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(_DEBUG, help="Show the traceback of an error; works after any command."),
    ] = False,
) -> None:
    """Options of every command."""


@app.command(epilog="Example:  emodarts demo --out demo")
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folder.")] = Path("demo"),
    resume: ResumeOption = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search, train, test, report and predict on a small generated corpus, in minutes.

    The corpus is a toy: its scores show that everything works and mean nothing for real speech.
    """
    from emodarts.corpora import load_corpus
    from emodarts.experiments.plan import Options
    from emodarts.experiments.run import run
    from emodarts.layout import RunFolder
    from emodarts.progress import for_terminal
    from emodarts.recipe import load_recipe
    from emodarts.reports.markdown import to_markdown
    from emodarts.reports.report import write_report
    from emodarts.reports.tables import result_blocks
    from emodarts.serving.model import Model

    corpus = load_corpus("synthetic", None if cache is None else cache / "synthetic")
    options = Options(resume=resume, cache=cache)
    progress = for_terminal()
    with _explained_stop(out, progress):
        result = run(load_recipe("demo"), corpus, out, options, progress)
    report = write_report(out)
    fold = result["folds"][0]
    model = RunFolder(out).trial(fold["fold"], result["seeds"][0]).model
    unseen = next(u for u in corpus if u.speaker in fold["test_speakers"])
    answers = Model.load(model).predict(unseen.path)
    if as_json:
        print_json({**result, "prediction": answers[0].to_dict()})
        return
    typer.echo(to_markdown(*result_blocks([result])))
    typer.echo(f"\nA file of an unseen speaker, labelled {unseen.label}:")
    print_answers("table", result["classes"], answers)
    typer.echo(f"\nReport, with drawings of the cells: {report}")
    typer.echo(f"Classify a file of your own:        emodarts predict {model} FILE")


@app.command(epilog="Example:  emodarts corpora --corpus emodb --root emodb/wav --check")
def corpora(
    corpus: Annotated[
        str | None, typer.Option("--corpus", metavar="NAME", help="Describe this corpus.")
    ] = None,
    root: RootOption = None,
    reader: ReaderOption = None,
    labels: LabelsOption = None,
    styles: StylesOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Decode every file and list those that are unusable.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the readers, or what one of them finds: classes, speakers, durations, omissions.

    Without --check, only the headers of audio files are read. With it, every file is decoded, and
    unusable audio makes the exit code 2.
    """
    if corpus is None:
        if root is not None or reader or labels or styles or check:
            raise EmodartsError("every option but --json needs --corpus")
        _list_readers(as_json)
        return
    listed = _load_corpus(corpus, root, reader)
    from emodarts.audio.survey import check_all, read_headers
    from emodarts.progress import for_terminal
    from emodarts.recipe import Recipe
    from emodarts.reports.corpus import corpus_page, describe_corpus
    from emodarts.reports.markdown import to_markdown

    progress = for_terminal()
    chosen = Recipe.from_dict({"labels": labels}, "--labels").labels if labels else None
    warnings = listed.spelling_warnings(chosen)
    if labels or styles:
        listed = listed.select(chosen, None if styles is None else names(styles))
    progress.start("headers", len(listed))
    headers = read_headers(listed.utterances, progress.advance)
    checked = None
    if check:
        progress.start("check", len(listed))
        checked = check_all(listed.utterances, progress.advance)
    facts = describe_corpus(listed, headers, checked, warnings)
    if as_json:
        print_json(facts)
    else:
        typer.echo(to_markdown(corpus_page(listed, headers, facts)))
    if checked is not None and checked.bad:
        raise AudioError(
            f"{len(checked.bad)} of {len(listed)} utterances have unusable audio:"
            + list_lines([name_once(name, reason) for name, reason in checked.bad], _NAMED)
        )


def _list_readers(as_json: bool) -> None:
    from emodarts.corpora import describe_readers, reader_options

    readers = {name: (what, reader_options(name)) for name, what in describe_readers().items()}
    if as_json:
        print_json(
            {name: {"what": what, "options": options} for name, (what, options) in readers.items()}
        )
    else:
        print_readers(readers)


@app.command(epilog="Example:  emodarts recipes --json")
def recipes(as_json: JsonOption = False) -> None:
    """List the built-in recipes: system, search strategy, parameters and paper of each.

    Parameters are those of a model for the classes of the recipe, or for four classes where it
    keeps all of a corpus; they are left out where a search decides them.
    """
    from emodarts.systems.listing import list_recipes

    found = list_recipes()
    if as_json:
        print_json({name: recipe.to_dict() for name, recipe in found.items()})
    else:
        print_recipes(found)


@app.command(
    cls=RecipeCommand,
    epilog="Example:  emodarts run quick --corpus emodb --root emodb --seeds 0,1 --out runs/quick",
)
@with_request(RunRequest)
def run(request: RunRequest) -> None:
    """Search, train and test in every fold with every seed; report the scores.

    Nothing is searched or trained on the speakers of a test fold. With --resume, a run that was
    stopped gives the result that it would have given.
    """
    _carry_out(request)


@app.command(
    cls=RecipeCommand,
    epilog="Example:  emodarts search cells --corpus emodb --root emodb --out runs/searched",
)
@with_request(SearchRequest)
def search(request: SearchRequest, all_data: AllDataOption = False) -> None:
    """First half of a run: find and draw the cells of every fold and seed, without training."""
    _carry_out(request, train=False, all_data=all_data)


@app.command(
    cls=RecipeCommand,
    epilog="Example:  emodarts train cells --genotype genotype.json --all-data --corpus emodb "
    "--root emodb --out runs/deploy",
)
@with_request(RunRequest)
def train(
    request: RunRequest,
    genotype: Annotated[
        Path | None,
        typer.Option(
            "--genotype",
            metavar="FILE",
            help="Cells to train. [default: those of `search` in --out, with --resume]",
        ),
    ] = None,
    all_data: AllDataOption = False,
) -> None:
    """Second half of a run: train and test cells that were found, or train the model to deploy."""
    from emodarts.genotype import Genotype

    given = None if genotype is None else Genotype.load(genotype)
    _carry_out(request, search=False, genotype=given, all_data=all_data)


@app.command(
    cls=RecipeCommand,
    epilog="Example:  emodarts headroom cells --genotypes 8 --seeds 0,1,2 --folds 0 "
    "--corpus emodb --root emodb --out runs/headroom",
)
@with_request(HeadroomRequest)
def headroom(
    request: HeadroomRequest,
    genotypes: Annotated[
        int, typer.Option("--genotypes", metavar="K", min=2, help="Number of random genotypes.")
    ] = 8,
    inner_folds: Annotated[
        int,
        typer.Option(
            "--inner-folds", metavar="N", min=2, help="Groups of speakers to judge by in turn."
        ),
    ] = 3,
) -> None:
    """Show whether genotypes differ by more than seeds do, and what the best could gain.

    Random genotypes are trained with every seed on development speakers alone, in every fold that
    is asked for; test speakers are used for nothing.
    """
    recipe = load_requested_recipe(request)
    corpus = _load_corpus(request.corpus, request.root, request.reader)
    from emodarts.experiments.headroom import headroom as measure
    from emodarts.experiments.plan import Options
    from emodarts.progress import for_terminal
    from emodarts.reports.headroom import headroom_page, write_headroom
    from emodarts.reports.markdown import to_markdown

    out = request.out or Path("runs") / f"headroom-{recipe.name}-{request.corpus}"
    options = Options(
        resume=request.resume, skip_bad=request.skip_bad, cache=request.cache, jobs=request.jobs
    )
    progress = for_terminal()
    with _explained_stop(out, progress):
        result = measure(recipe, corpus, out, genotypes, inner_folds, options, progress)
    path = write_headroom(out, result)
    if request.as_json:
        print_json(result)
    else:
        typer.echo(f"{to_markdown(headroom_page(result))}\n\nPage: {path}")


@app.command(
    cls=RecipeCommand,
    epilog="Example:  emodarts predict runs/x/fold-0/seed-0/model talk.mp3 --window 4 --hop 2 "
    "--format json",
)
def predict(
    model: ModelArgument,
    files: Annotated[
        list[Path] | None,
        # A file that cannot be read shall not keep the others from being answered.
        typer.Argument(metavar="FILE", help="Audio files, or folders of them.", readable=False),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus", metavar="NAME", help="Classify a corpus, whether it has labels or not."
        ),
    ] = None,
    root: RootOption = None,
    reader: ReaderOption = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part", metavar="PART", help="Only this published part of the corpus, e.g. Test3."
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            "--window", metavar="SECONDS", help="Classify windows of this length, not whole files."
        ),
    ] = None,
    hop: HopOption = None,
    per: Annotated[
        Literal["window", "segment", "file"],
        typer.Option(
            help="With --window, what an answer is for: each window, a segment of neighbouring "
            "windows with one label, or the file, by the mean of its windows."
        ),
    ] = "window",
    abstain: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Answer `uncertain` where no class has this probability, e.g. 0.6.",
        ),
    ] = 0.0,
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", min=1, help="Files that are read side by side.")
    ] = 1,
    style: Annotated[
        Style,
        typer.Option(
            "--format",
            help="json prints one object on each line; audformat and textgrid (Praat) are written "
            "to the folder --out.",
        ),
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for --format audformat or textgrid."),
    ] = None,
) -> None:
    """Name the emotion in audio files of any sample rate and length.

    Files that cannot be used are named at the end on standard error and the others are classified;
    the exit code is then 2. Silence and noise have no emotion: their label is empty, and a note
    says why.
    """
    from emodarts.progress import Silent, for_terminal
    from emodarts.serving.model import Model, Segment, find_audio
    from emodarts.serving.timeline import segments as join_windows
    from emodarts.serving.timeline import whole, write_audformat, write_text_grids
    from emodarts.serving.windows import check_windows

    check_windows(window, hop)
    if per != "window" and window is None:
        raise EmodartsError(f"--per {per} needs --window")
    if (out is None) == (style in ("audformat", "textgrid")):
        raise EmodartsError("--out and --format audformat or textgrid belong together")
    segments: list[Segment] = []
    faults: list[EmodartsError] = []
    left_out: list[tuple[str, Sequence[tuple[object, str]]]] = []
    for path in files or ():
        try:
            inside, unread = find_audio(path)
            segments += [Segment(file) for file in inside]
            left_out.append((str(path), unread))
        except EmodartsError as error:
            faults.append(error)
    if corpus is not None:
        listed = _load_corpus(corpus, root, reader)
        segments += [Segment(*found) for found in _segments(listed, part)]
        left_out.append((f"corpus {corpus}", listed.skipped))
    elif root is not None or reader or part is not None:
        raise EmodartsError("--root, --corpus-option and --part need --corpus")
    elif not files:
        raise EmodartsError("No input: name audio files or folders.")
    loaded = Model.load(model)
    for place, skipped in left_out:
        if skipped:
            print_warning(f"{shown(place)}: not everything is read:{list_skipped(skipped)}")
    # Lines of answers that are printed at once would go through a bar.
    quiet = len(segments) == 1 or not sys.stderr.isatty() or style in ("json", "csv")
    progress = Silent() if quiet else for_terminal()
    progress.start("predict", len(segments))
    classified = silent = 0

    def groups() -> Iterator[list[Answer]]:
        nonlocal classified, silent
        for found in loaded.predict_many(segments, window, hop, jobs=jobs):
            progress.advance()
            if isinstance(found, EmodartsError):
                faults.append(found)
                continue
            if any(answer.label for answer in found):
                classified += 1
            else:
                silent += 1
            if per == "segment" or style == "textgrid":
                found = join_windows(found)
            elif per == "file":
                found = [whole(found)]
            yield [answer.or_uncertain(abstain) for answer in found]

    if style == "textgrid" and out is not None:
        write_text_grids(out, groups())
    elif style == "audformat" and out is not None:
        write_audformat(out, loaded.classes, (a for group in groups() for a in group))
    else:
        answers = (a for group in groups() for a in group)
        print_answers(style, loaded.classes, answers)
    progress.stop()
    for fault in faults:
        print_error(fault)
    if faults and classified + silent:
        inputs = "1 input" if len(faults) == 1 else f"{len(faults)} inputs"
        were = "was" if classified == 1 else "were"
        without = f"; {silent} without speech" if silent else ""
        print_error(f"{inputs} failed; {classified} {were} classified{without}.")
    if faults:
        raise typer.Exit(2)


@app.command(epilog="Example:  emodarts models")
def models(as_json: JsonOption = False) -> None:
    """List the models that come with the package: what each was trained on, and what it is for."""
    from emodarts.serving.shipped import card_summary, shipped_models

    found = {name: card_summary(folder) for name, folder in shipped_models().items()}
    if as_json:
        print_json(found)
    else:
        print_models(found)


@app.command(epilog="Example:  emodarts export emodb --onnx emodb.onnx")
def export(
    model: ModelArgument,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write one file from sound to probabilities, for onnxruntime (extra `onnx`).",
        ),
    ] = None,
    check: Annotated[
        list[Path] | None,
        typer.Option(
            "--check",
            metavar="AUDIO",
            help="With --onnx: compare on this file too, beside generated sound (may be repeated).",
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="With --onnx: keep weights in 8 bits; smaller, inexact.")
    ] = False,
    window: Annotated[
        float | None,
        typer.Option(
            "--window",
            metavar="SECONDS",
            help="With --onnx: the streaming form, which takes chunks and answers such windows.",
        ),
    ] = None,
    hop: HopOption = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Write the model and its card to a folder."),
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(
            metavar="USER/NAME", help="Put that folder on the Hugging Face Hub (extra `hub`)."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="DIR",
            help="With --folder or --hub: run of the same recipe whose scores go on the card.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model for other programs and places.

    An ONNX file is compared with the model on the way, and not written if an answer differs.
    """
    if sum(place is not None for place in (onnx, folder, hub)) != 1:
        raise EmodartsError("Give one of --onnx FILE, --folder DIR, --hub USER/NAME.")
    if onnx is None and (check or int8 or window is not None or hop is not None):
        raise EmodartsError("--check, --int8, --window and --hop need --onnx")
    if onnx is not None:
        if run is not None:
            raise EmodartsError("--run needs --folder or --hub")
        from emodarts.serving.export import export_onnx
        from emodarts.serving.model import Model

        loaded = Model.load(model)
        print_notice(f"Exporting {shown(model)} to {shown(onnx)} and comparing its answers ...")
        found = export_onnx(loaded, onnx, check or (), int8=int8, window=window, hop=hop)
        if as_json:
            print_json(found.to_dict())
            return
        typer.echo(
            f"{found.path}: {found.bytes / 1e6:.2f} MB. On {found.sounds} sounds, probabilities "
            f"differ by at most {found.difference:.1g} and {100 * found.same_labels:.0f} % of the "
            "labels are the same."
        )
        return
    from emodarts.serving.hub import push, write_folder
    from emodarts.serving.shipped import find_model

    place = find_model(model)
    if folder is not None:
        write_folder(place, folder, run)
    where = str(folder) if hub is None else push(place, hub, run)
    if as_json:
        print_json({"where": where})
    else:
        typer.echo(where)


@app.command(epilog="Example:  emodarts explain emodb talk.wav --out talk.png")
def explain(
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Audio file of up to a minute.")],
    out: Annotated[Path, typer.Option("--out", metavar="PNG", help="Picture to write.")],
) -> None:
    """Draw which time and frequency an answer depends on, over the spectrogram.

    Each part of the sound is made quieter in turn. Without a red part the probability of the
    label falls, without a blue one it rises.
    """
    from emodarts.serving.explain import explain as occlude
    from emodarts.serving.explain import write_picture
    from emodarts.serving.model import Model

    found = occlude(Model.load(model), file)
    write_picture(found, out)
    print_answers("table", list(found.answer.probabilities), [found.answer])
    typer.echo(f"\nPicture: {out}")


@app.command(
    cls=RecipeCommand,
    epilog="Example:  emodarts evaluate runs/x/fold-0/seed-0/model --corpus ravdess --root ravdess",
)
def evaluate(
    model: ModelArgument,
    corpus: CorpusOption,
    root: RootOption = None,
    reader: ReaderOption = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=LABEL,...",
            help="Labels that a class of the model stands for (may be repeated). [default: labels "
            "and classes are matched by their common names]",
        ),
    ] = None,
    styles: StylesOption = None,
    skip_trained: Annotated[
        bool,
        typer.Option("--skip-trained", help="Leave out utterances that the model was trained on."),
    ] = False,
    skip_bad: SkipBadOption = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write every prediction to this CSV file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model on a labelled corpus: UA, WA, macro F1 and the confusion of its classes.

    Utterances that the model was trained on are refused, by the content of their audio.
    """
    listed = _load_corpus(corpus, root, reader)
    from emodarts.progress import for_terminal
    from emodarts.recipe import Recipe
    from emodarts.reports.evaluation import evaluation_page
    from emodarts.reports.markdown import to_markdown
    from emodarts.scoring.predictions import write_predictions
    from emodarts.serving.evaluation import evaluate
    from emodarts.serving.model import Model

    chosen = Recipe.from_dict({"labels": labels}, "--labels").labels if labels else None
    if styles is not None:
        listed = listed.select(None, names(styles))
    loaded = Model.load(model)
    found = evaluate(
        loaded, listed, for_terminal(), chosen, skip_trained=skip_trained, skip_bad=skip_bad
    )
    if out is not None:
        write_predictions(out, found.predictions, loaded.classes)
    if as_json:
        print_json(found.result)
    else:
        typer.echo(to_markdown(evaluation_page(found.result)))


app.command(cls=RecipeCommand, epilog="Example:  emodarts serve runs/x/fold-0/seed-0/model")(serve)


def _segments(corpus: Corpus, part: str | None) -> list[tuple[Path, float, float | None]]:
    """File, start and end of the utterances of a corpus, or of one part of it."""
    chosen = [u for u in corpus if part is None or (u.split or "").casefold() == part.casefold()]
    if not chosen:
        parts = ", ".join(corpus.count("split")) or "none"
        raise CorpusError(f"corpus {corpus.name!r} has no part {part!r}; its parts: {parts}")
    # In order of time, a long recording is decoded in one pass.
    return [(u.path, u.start, u.end) for u in sorted(chosen, key=lambda u: (u.path, u.start))]


@app.command(
    cls=RecipeCommand,
    epilog="Example:  emodarts prepare emodarts --corpus msp-podcast --root msp --device cuda",
)
@with_request(PrepareRequest)
def prepare(request: PrepareRequest) -> None:
    """Compute and store the features of a corpus, so that runs start at once.

    Memory does not grow with the corpus. After an interruption, the same command continues.
    """
    recipe = load_requested_recipe(request)
    corpus = _load_corpus(request.corpus, request.root, request.reader)
    from emodarts.experiments.prepare import prepare
    from emodarts.progress import for_terminal
    from emodarts.runtime import configure

    facts = prepare(
        recipe,
        corpus,
        configure(recipe.compute),
        for_terminal(),
        cache=request.cache,
        skip_bad=request.skip_bad,
    )
    if request.as_json:
        print_json(facts)
        return
    left = f", {len(facts['bad'])} left out" if facts["bad"] else ""
    versions = f" in {facts['versions']} versions" if facts["versions"] > 1 else ""
    typer.echo(f"{facts['utterances']} utterances{versions}{left}, stored in {facts['store']}")


app.command(epilog="Example:  emodarts grid grid.yaml --out runs/grid --jobs 4")(grid)


@app.command(epilog="Example:  emodarts report runs/searched runs/random --html report.html")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders of runs and grids; several runs are compared."),
    ],
    only_compared: Annotated[
        bool,
        typer.Option("--compare", help="Only compare: leave out the single runs of several."),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write one HTML file that holds it all."),
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option("--latex", metavar="FILE", help="Also write the tables of numbers as LaTeX."),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            "--audio",
            metavar="FOLDER",
            help="Folder of the corpus: --html links the utterances that it lists, to be played.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run (Markdown and figures), or compare several runs or a grid."""
    from emodarts.experiments.grid_plan import asked_runs, is_grid
    from emodarts.experiments.grid_run import sum_up
    from emodarts.reports.grid import grid_facts, write_comparison
    from emodarts.reports.markdown import to_markdown
    from emodarts.reports.page import make_comparison, runs_in, write_latex, write_page
    from emodarts.reports.report import load_result

    if audio is not None and html is None:
        raise RunError("--audio needs --html FILE, which is what plays it")
    grids = [path for path in runs if is_grid(path)]
    if only_compared and len(runs) == 1 and not grids:
        raise RunError("--compare needs several runs, or a grid")
    for path in grids:
        sum_up(asked_runs(path))
        comparison = write_comparison(path)
    folder = grids[0] if len(runs) == len(grids) == 1 else None
    results = [load_result(run) for run in runs_in(runs)]
    if folder is not None:
        text = to_markdown(comparison)
    elif len(runs) > 1:
        text = to_markdown(make_comparison(runs))
    else:
        text = _write_report(runs[0], results[0])
    if html is not None:
        write_page(runs, html, audio, only_compared=only_compared)
        text += f"\n\nPage: {html}" if len(runs) > 1 or grids else f"\nPage: {html}"
    if latex is not None:
        write_latex(runs, latex)
    if as_json and folder is not None:
        print_json(grid_facts(asked_runs(folder)))
    elif as_json:
        print_json(results[0] if len(results) == 1 else results)
    else:
        typer.echo(text)


@app.command(epilog="Example:  emodarts watch runs")
def watch(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Run folder, or a folder of run folders.")
    ],
    every: Annotated[
        float,
        typer.Option("--every", metavar="SECONDS", min=0.1, help="Time between updates."),
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Show the present state once.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch runs from another terminal: epoch, UA, leading operations, time left.

    Only files are read, so the runs may be on another machine that shares the folder. A trial
    whose files do not change any more is called stopped. UA is that of the data for alphas in a
    search, of the inner validation (or else the training batches) in a training, and of the test
    fold once a trial is done.
    """
    if not folder.is_dir():
        raise EmodartsError(f"no such folder: {folder}")
    from emodarts.cli.watch import states, watch

    if as_json:
        print_json([state.to_dict() for state in states(folder)])
    else:
        watch(folder, every, once=once)


def _load_corpus(name: str, root: Path | None, given: Sequence[str] | None) -> Corpus:
    from emodarts.corpora import load_corpus

    options: dict[str, str] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or key in options:
            raise CorpusError(f"--corpus-option {text!r}; allowed: KEY=VALUE, each KEY once")
        options[key] = value
    return load_corpus(name, root, **options)


def _carry_out(request: RunRequest, **halves: Any) -> None:
    """Do a run or a half of it, and print what it has made; ``halves`` are of :class:`Options`."""
    recipe = load_requested_recipe(request)
    corpus = _load_corpus(request.corpus, request.root, request.reader)
    # Later than what may be wrong, since they load torch.
    from emodarts.experiments.plan import Options
    from emodarts.experiments.run import run
    from emodarts.parallel import leads
    from emodarts.progress import for_terminal

    out = request.out or Path("runs") / f"{recipe.name}-{request.corpus}"
    options = Options(
        resume=request.resume,
        skip_bad=request.skip_bad,
        cache=request.cache,
        jobs=request.jobs,
        asked=tuple(change.partition("=")[0] for change in request.changes or ()),
        **halves,
    )
    progress = for_terminal()
    with _explained_stop(out, progress):
        result = run(recipe, corpus, out, options, progress)
    if not leads():
        return
    if "trials" in result:
        text = "\n".join(_draw_trial(out, trial, options) for trial in result["trials"])
        for warning in result["warnings"]:
            typer.echo(f"warning: {warning}", err=True)
    else:
        text = _write_report(out, result)
    if request.as_json:
        print_json(result)
    else:
        typer.echo(text)


def _explained_stop(out: Path, progress: Progress) -> AbstractContextManager[None]:
    """:func:`explained_stop` of a run in ``out``."""

    def describe() -> str:
        from emodarts.experiments.summary import describe_state

        return describe_state(out)

    return explained_stop(progress, describe, "--resume")


def _draw_trial(out: Path, trial: dict[str, Any], options: Options) -> str:
    """Draw the cells of a trial where it has some; return the path of what it has made."""
    from emodarts.layout import RunFolder
    from emodarts.reports.report import draw_cells

    folder = RunFolder(out).trial(None if options.all_data else trial["fold"], trial["seed"])
    if folder.genotype.is_file():
        draw_cells(folder)
    return str(folder.model if options.train else folder.genotype)


def _write_report(out: Path, result: dict[str, Any]) -> str:
    """Write the report of a run; return its table and its path as text."""
    from emodarts.reports.markdown import to_markdown
    from emodarts.reports.report import write_report
    from emodarts.reports.tables import result_blocks

    path = write_report(out)
    return f"{to_markdown(*result_blocks([result]))}\n\nReport: {path}"


def _set_up_process() -> None:
    """Settings of the whole process, which a library must leave to its caller."""
    # Threads that spin long while they wait cost nine tenths of the time as soon as another
    # process wants a core; threads that never spin triple the time of a small LSTM.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "300")
    keep_freed_memory()
    show_warnings_plainly()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that is not text in the encoding of the terminal shall not end a command.
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors of the project's own type end with exit code 2."""
    _set_up_process()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in given
    try:
        arguments = [a for a in given if a != _DEBUG]
        sys.exit(app(args=arguments, prog_name="emodarts", standalone_mode=False))
    except _UsageError as error:
        text = io.StringIO()
        error.show(text)  # type: ignore[attr-defined]
        typer.echo(re.sub(r"^Error: ", "error: ", text.getvalue(), flags=re.M), err=True, nl=False)
        sys.exit(2)
    except Stopped as stopped:
        words = [a for a in given if a != stopped.option]
        again = shlex.join(["emodarts", *words, *filter(None, [stopped.option])])
        typer.echo(f"Stopped {stopped}. To go on:  {again}", err=True)
        sys.exit(stopped.code)
    except EmodartsError as error:
        if debug:
            raise
        print_error(error)
        sys.exit(2)
