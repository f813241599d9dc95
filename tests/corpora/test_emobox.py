"""EmoBox' lists and folds, and the many places where their sound may be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts.corpora.emobox import read_emobox
from emodarts.corpora.iemocap import read_iemocap
from emodarts.corpora.utterance import PublishedFold
from emodarts.errors import CorpusError

EMOBOX = Path(__file__).parents[3] / "shared" / "data" / "emobox"


def put(root: Path, *names: str) -> Path:
    """Make files that are no sound: listing must not open them."""
    for folder in {(root / name).parent for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).touch()
    return root


def row(stem: str, emo: str = "anger", **fields: Any) -> dict[str, Any]:
    """A row of EmoBox, e.g. of ``03a01Wa``."""
    wav = f"downloads/toy/wav/{stem}.wav"
    named = {"key": f"toy-{stem}", "dataset": "toy", "wav": wav, "emo": emo}
    return named | {"sample_rate": 16000, "length": 1.5} | fields


def write(path: Path, rows: Iterable[Any], end: str = "\n", bom: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + end for r in rows)
    path.write_bytes((bom + text).encode("utf-8", "surrogateescape"))
    return path


def folds(root: Path, *parts: dict[str, Sequence[Any]]) -> Path:
    for k, fold in enumerate(parts, 1):
        for part, rows in fold.items():
            write(root / f"fold_{k}" / f"toy_{part}_fold_{k}.jsonl", rows)
    return root


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A corpus of a, b, c with two folds, and its sound, as in a checkout of EmoBox."""
    put(tmp_path, *(f"downloads/toy/wav/{stem}.wav" for stem in "abc"), "downloads/other/a.wav")
    root = tmp_path / "data" / "toy"
    a, b, c = row("a"), row("b", "sad"), row("c")
    write(root / "toy.jsonl", (c, b, a))
    write(root / "label_map.json", ['{"anger": "Angry", "sad": "Sad"}'])
    return folds(root, {"train": [b, a], "test": [c]}, {"train": [c], "valid": [a], "test": [b]})


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty files under all the names of the real lists, in a folder for each corpus."""
    if not EMOBOX.is_dir():
        pytest.skip(f"no EmoBox lists at {EMOBOX}")
    root = tmp_path_factory.mktemp("downloads")
    for name in ("emodb", "iemocap", "ravdess", "cremad"):
        lines = (EMOBOX / name / f"{name}.jsonl").read_text().splitlines()
        put(root / name, *(json.loads(line)["wav"] for line in lines))
    return root


GENDERS = {"female", "male"}


@pytest.mark.parametrize(
    ("name", "classes", "n_speakers", "n_tested"),
    [
        ("emodb", {"anger": 127, "boredem": 81, "disgust": 46, "fear": 69, "happy": 71,
                   "neutral": 79, "sad": 62}, 10, [107] * 5),
        ("iemocap", {"ang": 1103, "exc": 1041, "hap": 595, "neu": 1708, "sad": 1084}, 10,
         [1085, 1023, 1151, 1031, 1241]),
        ("ravdess", {"Angry": 192, "Calm": 192, "Disgust": 192, "Fearful": 192, "Happy": 192,
                     "Neutral": 96, "Sad": 192, "Surprised": 192}, 24, [240] * 6),
        ("cremad", {"ANG": 1271, "DIS": 1271, "FEA": 1271, "HAP": 1271, "NEU": 1087,
                    "SAD": 1271}, 91, [1856]),
    ],
)  # fmt: skip
def test_real_lists(
    downloads: Path, name: str, classes: dict[str, int], n_speakers: int, n_tested: list[int]
) -> None:
    corpus = read_emobox(EMOBOX / name, audio=str(downloads / name))
    assert corpus.count("label") == classes
    assert corpus.classes == tuple(classes)
    assert set(corpus.emotions) == set(classes)
    assert len(corpus.count("speaker")) == n_speakers
    assert set(corpus.count("gender")) == GENDERS
    assert all(u.speaker is not None for u in corpus)
    assert all(u.path.is_file() and u.path.stem.replace("_", "-") in u.name.replace("_", "-")
               for u in corpus)  # fmt: skip
    assert corpus.skipped == ()
    assert [len(fold.test) for fold in corpus.folds] == n_tested
    names = {u.name for u in corpus}
    for fold in corpus.folds:
        assert fold.validation == ()
        assert set(fold.train) | set(fold.test) == names
        assert len(fold.train) + len(fold.test) == len(names)


def test_iemocap_folds_are_its_sessions(downloads: Path) -> None:
    corpus = read_emobox(EMOBOX / "iemocap", audio=str(downloads / "iemocap"))
    sessions = {u.name: u.session for u in corpus}
    assert [{sessions[name] for name in fold.test} for fold in corpus.folds] == [
        {f"Session{k}"} for k in range(1, 6)
    ]
    turns = {u.name: u for u in corpus}
    woman = turns["iemocap-Ses01M_impro01_F000"]
    assert (woman.speaker, woman.gender) == ("Ses01_F", "female")
    assert (woman.dialogue, woman.style) == ("Ses01M_impro01", "improvised")
    assert corpus.count("style") == {"improvised": 2943, "scripted": 2588}
    # EmoBox' map merges excitement into happiness; labels mean what they mean in IEMOCAP's reader.
    four = {"anger": 1103, "happiness": 595, "neutral": 1708, "sadness": 1084}
    assert corpus.select(tuple(four)).count("label") == four
    five = four | {"excitement": 1041}
    assert corpus.select(tuple(five)).count("label") == five
    merged = corpus.select(("anger", "happiness=happiness,excitement"))
    assert merged.count("label") == {"anger": 1103, "happiness": 595 + 1041}


def test_iemocap_turns_are_those_of_its_own_reader(tmp_path: Path) -> None:
    turns = ("Ses01M_impro01_F000", "Ses05F_script01_1b_M012")
    for turn in turns:
        session = tmp_path / f"Session{turn[4]}"
        dialogue = turn.rpartition("_")[0]
        put(session, f"sentences/wav/{dialogue}/{turn}.wav")
        line = f"[6.29 - 8.23]\t{turn}\tneu\t[nan, nan, nan]"
        write(session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt", [line])
    write(tmp_path / "i.jsonl", [row(t, "neu", dataset="iemocap", wav=f"{t}.wav") for t in turns])
    own = [replace(u, name=f"toy-{u.name}") for u in read_iemocap(tmp_path)]
    assert list(read_emobox(tmp_path)) == own


def test_a_real_corpus_in_parts(emodb_root: Path, downloads: Path) -> None:
    """339 of the 535 files of EmoDB: folds keep the files that exist, the others are listed."""
    assert downloads
    corpus = read_emobox(EMOBOX / "emodb", audio=str(emodb_root))
    assert len(corpus) == 339
    assert len(corpus.skipped) == 535 - 339
    assert sum(len(fold.test) for fold in corpus.folds) == 339
    assert corpus.emotions["happy"] == "happiness"


def test_a_whole_corpus(toy: Path) -> None:
    corpus = read_emobox(toy)
    assert [(u.name, u.label, u.speaker) for u in corpus] == [
        ("toy-a", "anger", None), ("toy-b", "sad", None), ("toy-c", "anger", None),
    ]  # fmt: skip
    assert corpus.utterances[0].path == toy.parents[1] / "downloads" / "toy" / "wav" / "a.wav"
    assert corpus.folds == (
        PublishedFold(train=("toy-b", "toy-a"), validation=(), test=("toy-c",)),
        PublishedFold(train=("toy-c",), validation=("toy-a",), test=("toy-b",)),
    )
    assert corpus.emotions == {"anger": "anger", "sad": "sadness"}
    assert corpus.skipped == ()


def test_label_map_names_what_its_spelling_does_not(toy: Path) -> None:
    write(toy / "label_map.json", ['{"anger": "Frustrated", "sad": "Blue", "x": "y"}'])
    assert read_emobox(toy).emotions == {"anger": "anger", "sad": "sadness"}
    (toy / "label_map.json").unlink()
    assert read_emobox(toy).emotions == {"anger": "anger", "sad": "sadness"}
    (toy / "toy.jsonl").unlink()
    folds(toy, *[{"train": [row("a", "boredem")], "test": [row("b", "tired")]}] * 2)
    (toy / "fold_2" / "toy_valid_fold_2.jsonl").unlink()
    assert read_emobox(toy).emotions == {}
    write(toy / "label_map.json", ['{"boredem": "Boredom", "tired": "Tired"}'])
    assert read_emobox(toy).emotions == {"boredem": "boredom"}


@pytest.mark.parametrize("text", ["[1]", '{"anger": 1}', "{", "\udcff"])
def test_a_malformed_label_map(toy: Path, text: str) -> None:
    write(toy / "label_map.json", [text])
    with pytest.raises(CorpusError, match=r"label_map\.json"):
        read_emobox(toy)


def test_folds_without_a_list_and_a_list_without_folds(toy: Path) -> None:
    whole = read_emobox(toy)
    (toy / "toy.jsonl").rename(toy / "toy.txt")
    assert read_emobox(toy) == whole
    (toy / "toy.txt").rename(toy / "toy.jsonl")
    for k in (1, 2):
        (toy / f"fold_{k}").rename(toy / f"old_{k}")
    assert read_emobox(toy).utterances == whole.utterances
    assert read_emobox(toy).folds == ()


def test_ten_folds_are_in_the_order_of_numbers(toy: Path) -> None:
    stems = "aaaaaaaaacc"
    folds(toy, *({"train": [row("b", "sad")], "test": [row(stem)]} for stem in stems))
    (toy / "fold_2" / "toy_valid_fold_2.jsonl").unlink()
    assert [fold.test for fold in read_emobox(toy).folds] == [(f"toy-{stem}",) for stem in stems]


def test_marks_line_ends_and_debris(toy: Path) -> None:
    whole = read_emobox(toy)
    write(toy / "toy.jsonl", (row("c"), "", row("b", "sad"), row("a")), "\r\n", "\ufeff")
    put(toy, "._toy.jsonl", "fold_1/._toy_test_fold_1.jsonl", "toy.json", "corpus.cfg")
    put(toy.parents[1], "downloads/toy/wav/._a.wav")
    write(toy / "fold_1" / "toy_test1_fold_1.jsonl", [row("c")])
    corpus = read_emobox(toy)
    assert (corpus.utterances, corpus.folds) == (whole.utterances, whole.folds)
    assert dict(corpus.skipped) == {
        "fold_1/toy_test1_fold_1.jsonl": "not part of a fold",
        "._a.wav": "resource fork of macOS, not audio",
    }


@pytest.mark.parametrize("below", [".", "wav", "toy/wav", "x/y/downloads/toy/wav"])
def test_sound_elsewhere(toy: Path, tmp_path: Path, below: str) -> None:
    audio = tmp_path / "audio"
    put(audio, *(f"{below}/{stem}.WAV" for stem in "ac"), f"{below}/d.wav", f"{below}/d.txt")
    corpus = read_emobox(toy, audio=str(audio))
    assert [u.path for u in corpus] == [audio / below / f"{stem}.WAV" for stem in "ac"]
    assert corpus.classes == ("anger",)
    assert [fold.test for fold in corpus.folds] == [("toy-c",), ()]
    assert dict(corpus.skipped) == {
        "toy-b": "no such file",
        (Path(below) / "d.wav").as_posix(): "not listed",
    }


def test_sound_in_the_corpus_folder(toy: Path) -> None:
    (toy.parents[1] / "downloads").rename(toy.parents[1] / "elsewhere")
    with pytest.raises(CorpusError, match=r"has none of the 3 files.*option audio"):
        read_emobox(toy)
    put(toy, "wav/a.wav")
    assert [u.path for u in read_emobox(toy)] == [toy / "wav" / "a.wav"]


def test_separators_of_any_system(toy: Path) -> None:
    write(toy / "toy.jsonl", [row(s, wav=f"downloads\\toy\\wav\\{s}.wav") for s in "abc"])
    for k in (1, 2):
        (toy / f"fold_{k}").rename(toy / f"old_{k}")
    assert len(read_emobox(toy)) == 3


def test_the_file_that_shares_most_is_taken(toy: Path, tmp_path: Path) -> None:
    files = ("a.wav", "wav/a.wav", "old/toy/b.wav", "new/wav/b.wav", "x/c.wav")
    audio = put(tmp_path / "audio", *files)
    corpus = read_emobox(toy, audio=str(audio))
    assert [u.path for u in corpus] == [audio / files[1], audio / files[3], audio / files[4]]
    assert {*corpus.skipped} == {("a.wav", "not listed"), ("old/toy/b.wav", "not listed")}
    put(audio, "y/c.wav")
    with pytest.raises(CorpusError, match=r"toy-c: .*x/c\.wav and .*y/c\.wav"):
        read_emobox(toy, audio=str(audio))


def test_the_release_as_it_is_distributed(tmp_path: Path) -> None:
    """Its folders differ from those of the lists above the sessions."""
    turns = ("Ses01M_impro01_F000", "Ses02M_impro01_F000")
    inside = [f"Session{t[4]}/sentences/wav/{t[:-5]}/{t}.wav" for t in turns]
    rows = [
        row(turn, "neu", dataset="iemocap", wav=f"downloads/iemocap/{path}")
        for turn, path in zip(turns, inside, strict=True)
    ]
    root = write(tmp_path / "data" / "i.jsonl", rows).parent
    audio = put(tmp_path / "trees/iemocap", *(f"IEMOCAP_full_release/{path}" for path in inside))
    corpus = read_emobox(root, audio=str(audio))
    assert [u.path for u in corpus] == [audio / "IEMOCAP_full_release" / path for path in inside]
    assert corpus.skipped == ()


def test_no_row_gets_the_sound_of_another(tmp_path: Path) -> None:
    """Files of the same name are distinguished by their folders; half of a corpus is allowed."""
    names = ("ann/1.wav", "bob/1.wav", "ann/2.wav", "bob/2.wav")
    rows = [row(name.replace("/", ""), wav=f"downloads/toy/{name}") for name in names]
    root = write(tmp_path / "data" / "two.jsonl", rows).parent
    audio = put(tmp_path / "audio", "x/ann/1.wav", "x/ann/2.wav", "x/cy/1.wav")
    corpus = read_emobox(root, audio=str(audio))
    assert {u.name: u.path for u in corpus} == {
        "toy-ann1.wav": audio / "x/ann/1.wav", "toy-ann2.wav": audio / "x/ann/2.wav",
    }  # fmt: skip
    assert dict(corpus.skipped) == {
        "toy-bob1.wav": "no such file", "toy-bob2.wav": "no such file", "x/cy/1.wav": "not listed",
    }  # fmt: skip


def test_a_row_of_fifty_thousand_folders(toy: Path) -> None:
    """Its ends would fill the memory; no file has so many."""
    (toy / "fold_1").rename(toy / "old_1")
    (toy / "fold_2").rename(toy / "old_2")
    write(toy / "toy.jsonl", [row("a"), row("b", wav="x/" * 50_000 + "b.wav")])
    corpus = read_emobox(toy, audio=str(toy.parents[1] / "downloads"))
    assert [u.path.name for u in corpus] == ["a.wav", "b.wav"]


def test_two_files_for_a_row_and_two_rows_for_a_file(toy: Path, tmp_path: Path) -> None:
    twice = put(tmp_path / "x", "1/downloads/toy/wav/a.wav", "2/downloads/toy/wav/a.wav")
    with pytest.raises(CorpusError, match=r"toy-a: .*1/downloads.* and .*2/downloads"):
        read_emobox(toy, audio=str(twice))
    two = [row("1", wav="downloads/ann/1.wav"), row("2", wav="downloads/bob/1.wav")]
    root = write(tmp_path / "two" / "two.jsonl", two).parent
    flat = put(tmp_path / "flat", "1.wav")
    with pytest.raises(CorpusError, match=r"toy-1 and toy-2: .*1\.wav"):
        read_emobox(root, audio=str(flat))
    put(tmp_path / "flat", "ann/1.wav")
    corpus = read_emobox(root, audio=str(flat))
    assert [u.path.parent.name for u in corpus] == ["ann", "flat"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "line 2: not JSON: '{'"),
        ("[" * 5000, "line 2: not JSON|line 2: not an object"),
        ("[1]", r"line 2: not an object: '\[1\]'"),
        ({"key": "x", "wav": "x.wav", "emo": "sad"}, "line 2: no dataset"),
        (row("x", emo=3), "line 2: emo is 3"),
        (row("x", emo=None), "line 2: emo is None"),
        (row("x", emo=" "), "line 2: emo is ' '"),
        (row("x", key="\ud800"), "line 2: key is"),
        (row("x", wav="/"), "line 2: wav is '/', not the path"),
        (row("x", wav="a/../../x.wav"), "line 2: wav is .*, not the path"),
        (row("a"), "line 2: toy-a is also in toy/toy.jsonl, line 1"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_malformed_list(toy: Path, line: Any, fault: str) -> None:
    write(toy / "toy.jsonl", [row("a"), line])
    with pytest.raises(CorpusError, match=fault) as caught:
        read_emobox(toy)
    assert str(toy / "toy.jsonl") in str(caught.value)
    write(toy / "toy.jsonl", [row("a"), *[line] * 1000])
    with pytest.raises(CorpusError) as caught:
        read_emobox(toy)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("fold", "fault"),
    [
        ({"train": [row("a")], "test": [row("x")]}, "toy-x is not in toy.jsonl"),
        ({"train": [row("a")], "test": [row("b", "anger")]},
         "fold_1/toy_test_fold_1.jsonl, line 1: toy-b is anger, .*, but sad, .* in toy/toy.jsonl,"),
        ({"train": [row("a")], "test": [row("c", wav="downloads/toy/wav/a.wav")]},
         "toy-c is anger, downloads/toy/wav/a.wav, but anger, downloads/toy/wav/c.wav in"),
        ({"train": [row("a"), row("c")], "test": [row("c")]}, "toy-c is also in test"),
        ({"train": [row("a")], "valid": [row("c")], "test": [row("c")]}, "toy-c is also in test"),
        ({"train": [row("a"), row("a")], "test": [row("c")]}, "toy-a is also in .*line 1"),
        ({"train": [row("a")], "test": []}, "toy_test_fold_1.jsonl is empty"),
    ],
)  # fmt: skip
def test_a_fold_that_contradicts(toy: Path, fold: dict[str, list[Any]], fault: str) -> None:
    with pytest.raises(CorpusError, match=fault):
        read_emobox(folds(toy, fold))


def test_folds_that_contradict_each_other_without_a_list(toy: Path) -> None:
    (toy / "toy.jsonl").unlink()
    folds(toy, {"train": [row("a", "sad")], "test": [row("c")]})
    with pytest.raises(CorpusError, match=r"toy-a is anger, .* but sad, .* in fold_1/toy_train"):
        read_emobox(toy)


def test_missing_parts_and_folds(toy: Path, tmp_path: Path) -> None:
    (toy / "fold_1" / "toy_train_fold_1.jsonl").rename(tmp_path / "train")
    with pytest.raises(CorpusError, match="fold_1 has no train list"):
        read_emobox(toy)
    (toy / "fold_1").rename(toy / "old")
    with pytest.raises(CorpusError, match="has only fold_2; folds must be numbered from 1"):
        read_emobox(toy)
    write(toy / "fold_2" / "other_test_fold_2.jsonl", [row("a")])
    with pytest.raises(CorpusError, match="a fold has one test list"):
        read_emobox(toy)


def test_no_corpus_or_several(toy: Path) -> None:
    with pytest.raises(CorpusError, match="is not an EmoBox corpus; expected"):
        read_emobox(toy.parent)
    with pytest.raises(CorpusError, match=r"needs its folder \(--root\)"):
        read_emobox(None)
    with pytest.raises(CorpusError, match=r"no such folder: .*nowhere"):
        read_emobox(toy, audio=str(toy / "nowhere"))
    write(toy / "other.jsonl", [row("a")])
    with pytest.raises(CorpusError, match=r"several lists: other\.jsonl, toy\.jsonl"):
        read_emobox(toy)


@pytest.mark.parametrize(
    ("dataset", "stem"),
    [("emodb", "hello"), ("iemocap", "Ses06F_impro01_F000"), ("ravdess", "03-01-09-01-01-01-01"),
     ("cremad", "2001_IEO_ANG_XX"), ("toy", "03a01Wa")],
)  # fmt: skip
def test_a_name_without_a_speaker(tmp_path: Path, dataset: str, stem: str) -> None:
    put(tmp_path, f"{stem}.wav")
    write(tmp_path / "list.jsonl", [row(stem, dataset=dataset, wav=f"{stem}.wav")])
    (utterance,) = read_emobox(tmp_path)
    assert (utterance.speaker, utterance.gender, utterance.label) == (None, None, "anger")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
texts = st.sampled_from(["a", "b", "a.wav", "x/a.wav", "\\", "/a.wav"]) | st.text()
rows = st.fixed_dictionaries({}, optional=dict.fromkeys(("key", "dataset", "wav", "emo"), texts))


@given(
    st.binary()
    | st.lists(json_values | rows).map(lambda values: "\n".join(map(json.dumps, values)).encode())
)
def test_any_list_gives_utterances_or_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = put(tmp_path_factory.getbasetemp() / "any-list", "a.wav")
    for name in ("any.jsonl", "fold_1/any_train_fold_1.jsonl", "fold_1/any_test_fold_1.jsonl"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    with pytest.raises(CorpusError):  # at the latest because train and test are the same
        read_emobox(root, audio=str(root))
    for part in ("train", "test"):
        (root / f"fold_1/any_{part}_fold_1.jsonl").unlink()
    (root / "fold_1").rmdir()
    with suppress(CorpusError):
        assert {u.path.name for u in read_emobox(root, audio=str(root))} == {"a.wav"}
