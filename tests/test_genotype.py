"""Genotypes: JSON in and out, and no genotype that cannot be built."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts.errors import GenotypeError
from emodarts.genotype import FORMAT, NONE, SKIP, CellGenotype, Edge, Genotype
from emodarts.recipe import SPACES, NetworkSpec, Space

CNN_OPERATIONS = tuple(SPACES["all"].cnn)
SEQUENCE_OPERATIONS = tuple(SPACES["all"].sequence)

PAIR = [["skip_connect", 0], ["sep_conv_3x3", 1]]
SEQUENCE_PAIR = [["lstm_1", 0], ["skip_connect", 1]]


@st.composite
def cells(draw: st.DrawFn, nodes: int, operations: tuple[str, ...]) -> CellGenotype:
    legal = st.sampled_from([name for name in operations if name != NONE])
    cell = []
    for node in range(nodes):
        sources = st.integers(0, node + 1)
        pair = draw(st.lists(sources, min_size=2, max_size=2, unique=True))
        cell.append(tuple(Edge(draw(legal), source) for source in pair))
    return tuple(cell)


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    nodes, sequence_nodes = draw(st.integers(1, 6)), draw(st.integers(0, 6))
    return Genotype(
        normal=draw(cells(nodes, CNN_OPERATIONS)),
        reduction=draw(cells(nodes, CNN_OPERATIONS)),
        sequence=draw(cells(sequence_nodes, SEQUENCE_OPERATIONS)) if sequence_nodes else None,
        macro=draw(st.dictionaries(st.text(), st.one_of(st.integers(), st.lists(st.text())))),
    )


def plain(**changes: Any) -> dict[str, Any]:
    """A legal genotype of two nodes as JSON values, with some fields replaced."""
    cell = [PAIR, [["max_pool_3x3", 2], ["dil_conv_5x5", 0]]]
    sequence = [SEQUENCE_PAIR]
    cells = {"normal": cell, "reduction": cell, "sequence": sequence}
    return {"format": FORMAT, "macro": {}, **cells, **changes}


@given(genotype=genotypes())
def test_round_trip(genotype: Genotype) -> None:
    again = Genotype.from_dict(json.loads(json.dumps(genotype.to_dict())))
    assert again == genotype
    assert hash(again) == hash(genotype)


def test_file_round_trip(tmp_path: Path) -> None:
    genotype = Genotype.from_dict(plain())
    genotype.save(tmp_path / "a" / "genotype.json")
    assert Genotype.load(tmp_path / "a" / "genotype.json") == genotype
    assert json.loads((tmp_path / "a" / "genotype.json").read_text()) == plain()


def test_cells_and_skip_counts() -> None:
    genotype = Genotype.from_dict(plain())
    assert list(genotype.cells) == ["normal", "reduction", "sequence"]
    assert genotype.skip_counts() == {"normal": 1, "reduction": 1, "sequence": 1}
    without = Genotype.from_dict(plain(sequence=None))
    assert list(without.cells) == ["normal", "reduction"]
    assert without.to_dict()["sequence"] is None
    assert list(Genotype.from_dict(plain(normal=None)).cells) == ["reduction", "sequence"]
    assert (
        "sequence"
        not in Genotype.from_dict({k: v for k, v in plain().items() if k != "sequence"}).cells
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (plain(normal=[]), "cell 'normal' has no nodes; at least 1"),
        (plain(sequence=[]), "cell 'sequence' has no nodes"),
        (
            plain(reduction=[PAIR, [["none", 0], ["skip_connect", 1]]]),
            "'reduction', node 1.*'none'",
        ),
        (
            plain(normal=[[["skip_connect", 0], ["skip_connect", 2]], PAIR]),
            "'normal', node 0: an edge from state 2, which is not earlier; allowed: 0 to 1",
        ),
        (plain(normal=[PAIR, [["skip_connect", 0], ["skip_connect", 3]]]), "node 1: .*state 3"),
        (plain(normal=[[["skip_connect", -1], ["skip_connect", 0]], PAIR]), "state -1"),
        (
            plain(normal=[[["skip_connect", 1], ["sep_conv_3x3", 1]], PAIR]),
            "node 0: both edges read state 1; they must read different states",
        ),
        (plain(normal=[PAIR[:1], PAIR]), "node 0: 1 edges; allowed: exactly 2"),
        (plain(normal=[PAIR, [*PAIR, ["skip_connect", 2]]]), "node 1: 3 edges; allowed: exactly 2"),
        (plain(normal=[[], PAIR]), "node 0: 0 edges"),
        (plain(normal=[PAIR]), "normal cell has 1 nodes and the reduction cell 2"),
        (plain(format="emodarts.genotype/2"), "format is 'emodarts.genotype/2'; allowed: .*/1'"),
        (plain(format=None), "format is None"),
        ({"normal": [PAIR]}, "format is None"),
        (
            plain(sequnce=None),
            r"unknown field 'sequnce' \(did you mean 'sequence'\?\); allowed: format",
        ),
        (plain(macro=["pooling"]), "macro is an object of keys"),
        (plain(normal="PAIR"), "cell 'normal' is a list of nodes, not 'PAIR'"),
        (plain(normal={"0": PAIR}), "cell 'normal' is a list of nodes"),
        (plain(normal=[1, 2]), "cell 'normal', node 0: a list of edges, not 1"),
        (
            plain(normal=[[["skip_connect"], PAIR[1]], PAIR]),
            r"node 0: an edge is \[operation, source",
        ),
        (plain(normal=[[["skip_connect", "0"], PAIR[1]], PAIR]), "an edge is .*'0'"),
        (plain(normal=[[["skip_connect", 0.0], PAIR[1]], PAIR]), "an edge is .*0.0"),
        (plain(normal=[[["skip_connect", True], PAIR[0]], PAIR]), "an edge is .*True"),
        (plain(normal=[[[0, "skip_connect"], PAIR[1]], PAIR]), "an edge is"),
        ([], "a JSON object, not list"),
        (None, "a JSON object, not NoneType"),
    ],
)
def test_mistake_is_explained(value: Any, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        Genotype.from_dict(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (plain(normal=[SEQUENCE_PAIR, PAIR]), "'normal', node 0: unknown operation 'lstm_1'"),
        (plain(sequence=[PAIR]), "'sequence', node 0: unknown operation 'sep_conv_3x3'"),
        (
            plain(normal=[[["sep_cnv_3x3", 0], PAIR[1]], PAIR]),
            r"'sep_cnv_3x3' \(did you mean 'sep_conv_3x3'\?\); allowed .* max_pool_3x3, avg",
        ),
    ],
)
def test_an_operation_of_another_space_is_explained(value: Any, message: str) -> None:
    genotype = Genotype.from_dict(value)
    with pytest.raises(GenotypeError, match=message):
        genotype.require(NetworkSpec().operations)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1,\n  "normal": [,]}', "line 2, column 14"),
        ("", "line 1, column 1"),
        ("Genotype(normal=[])", "line 1"),
        ("[" * 100_000, "recursion"),
        ("1" * 5000, "digits"),
    ],
)
def test_broken_json_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "g.json"
    path.write_text(text)
    with pytest.raises(GenotypeError, match=message) as caught:
        Genotype.load(path)
    assert str(caught.value).count(str(path)) == 1


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    with pytest.raises(GenotypeError, match=r"no such file: .*g\.json"):
        Genotype.load(path)
    path.write_text(json.dumps(plain(normal=[])))
    with pytest.raises(GenotypeError, match=r"g\.json: cell 'normal' has no nodes"):
        Genotype.load(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)
EDGE = JSON | st.tuples(st.sampled_from([*CNN_OPERATIONS, *SEQUENCE_OPERATIONS]) | JSON, JSON)
CELL = JSON | st.lists(JSON | st.lists(EDGE, max_size=3), max_size=3)


@given(
    value=JSON
    | st.fixed_dictionaries(
        {},
        optional={"format": st.just(FORMAT), "normal": CELL, "reduction": CELL, "sequence": CELL},
    )
    | st.builds(lambda cell, name: plain(**{name: cell}), CELL, st.text(max_size=3))
    | st.builds(lambda cell, name: plain(**{name: cell}), CELL, st.sampled_from(sorted(plain())))
)
def test_any_json_is_a_genotype_or_a_genotype_error(value: Any) -> None:
    try:
        genotype = Genotype.from_dict(value)
    except GenotypeError:
        return
    assert Genotype.from_dict(genotype.to_dict()) == genotype


def test_frozen_and_hashable() -> None:
    genotype = Genotype.from_dict(plain())
    with pytest.raises(dataclasses.FrozenInstanceError):
        genotype.normal = ()  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        genotype.normal[0][0].source = 1  # type: ignore[misc]
    assert (
        len({genotype, Genotype.from_dict(plain()), Genotype.from_dict(plain(sequence=None))}) == 2
    )


def test_constructor_checks_too() -> None:
    with pytest.raises(GenotypeError, match="1 edges"):
        Genotype(normal=((Edge(SKIP, 0),),), reduction=((Edge(SKIP, 0), Edge(SKIP, 1)),))


PAPERS = {name: SPACES[name] for name in ("all", "lstm", "rnn", "lstm_att", "rnn_att")}


@pytest.mark.parametrize("space", PAPERS.values(), ids=PAPERS)
def test_the_papers_spaces(space: Space) -> None:
    """Eight CNN candidates (DARTS); one family of sequence candidates, or all (emoDARTS)."""
    assert tuple(space.cnn) == CNN_OPERATIONS
    assert len(space.cnn) == 8
    assert set(space.sequence) <= set(SEQUENCE_OPERATIONS)
    assert {SKIP, NONE} < set(space.sequence)
    assert len(SEQUENCE_OPERATIONS) == 14
