"""Operation names, search spaces and the genotype that a search ends with.

This module needs neither torch nor numpy, so a genotype can be checked anywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emodarts import files
from emodarts.errors import GenotypeError, did_you_mean

NONE = "none"
SKIP = "skip_connect"

#: Candidates on the edges of CNN cells, in the order of the rows of alpha (DARTS, ICLR 2019).
CNN_OPERATIONS: tuple[str, ...] = (
    "max_pool_3x3",
    "avg_pool_3x3",
    SKIP,
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    NONE,
)

_LSTM = ("lstm_1", "lstm_2", "lstm_3", "lstm_4")
_RNN = ("rnn_1", "rnn_2", "rnn_3", "rnn_4")
_LSTM_ATTENTION = ("lstm_att_1", "lstm_att_2")
_RNN_ATTENTION = ("rnn_att_1", "rnn_att_2")

#: Candidates on the edges of SeqNN cells (emoDARTS, arXiv 2403.14083).
SEQUENCE_OPERATIONS: tuple[str, ...] = (
    *_LSTM,
    *_RNN,
    *_LSTM_ATTENTION,
    *_RNN_ATTENTION,
    SKIP,
    NONE,
)

SequenceSpace = Literal["all", "lstm", "rnn", "lstm_att", "rnn_att"]

#: Named restrictions of the SeqNN space; each keeps ``skip_connect`` and ``none``.
SEQUENCE_SPACES: dict[SequenceSpace, tuple[str, ...]] = {
    "all": SEQUENCE_OPERATIONS,
    "lstm": (*_LSTM, SKIP, NONE),
    "rnn": (*_RNN, SKIP, NONE),
    "lstm_att": (*_LSTM_ATTENTION, SKIP, NONE),
    "rnn_att": (*_RNN_ATTENTION, SKIP, NONE),
}

#: Every node of a derived cell keeps this many incoming edges.
EDGES_PER_NODE = 2
FORMAT = "emodarts.genotype/1"


@dataclass(frozen=True, slots=True)
class Edge:
    """An operation and the state it reads: 0 and 1 are the cell's inputs, 2 the first node."""

    operation: str
    source: int


#: A cell is one pair of edges for each intermediate node, in order.
CellGenotype = tuple[tuple[Edge, ...], ...]


@dataclass(frozen=True, slots=True)
class Genotype:
    """The discrete cells found by a search.

    Attributes
    ----------
    normal, reduction : CNN cells; every node reads two different earlier states.
    sequence : SeqNN cell, or None where the SeqNN is fixed or absent.

    Raises
    ------
    GenotypeError
        For an unknown operation, an edge from the node itself or from a later one, two
        edges from the same state, a wrong number of edges, or a cell without nodes.
    """

    normal: CellGenotype
    reduction: CellGenotype
    sequence: CellGenotype | None = None

    def __post_init__(self) -> None:
        _check_cell("normal", self.normal, CNN_OPERATIONS)
        _check_cell("reduction", self.reduction, CNN_OPERATIONS)
        if len(self.normal) != len(self.reduction):
            raise GenotypeError(
                f"the normal cell has {len(self.normal)} nodes and the reduction cell "
                f"{len(self.reduction)}; both need the same number"
            )
        if self.sequence is not None:
            _check_cell("sequence", self.sequence, SEQUENCE_OPERATIONS)

    @property
    def cells(self) -> dict[str, CellGenotype]:
        """The cells by name; ``sequence`` only where there is one."""
        cells = {"normal": self.normal, "reduction": self.reduction}
        return cells if self.sequence is None else {**cells, "sequence": self.sequence}

    def skip_counts(self) -> dict[str, int]:
        """Number of ``skip_connect`` edges of each cell: many of them mark a collapsed search."""
        return {
            name: sum(edge.operation == SKIP for node in cell for edge in node)
            for name, cell in self.cells.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` is the inverse."""
        cells: dict[str, Any] = {
            name: [[[edge.operation, edge.source] for edge in node] for node in cell]
            for name, cell in self.cells.items()
        }
        return {"format": FORMAT, "sequence": None, **cells}

    @classmethod
    def from_dict(cls, value: Any) -> Genotype:
        """Check and build a genotype from JSON values. Raises :class:`GenotypeError`."""
        if not isinstance(value, dict):
            raise GenotypeError(f"a genotype is a JSON object, not {type(value).__name__}")
        if value.get("format") != FORMAT:
            raise GenotypeError(f"genotype format is {value.get('format')!r}; legal: {FORMAT!r}")
        legal = {"format", "normal", "reduction", "sequence"}
        unknown = sorted(set(value) - legal)
        if unknown:
            raise GenotypeError(
                f"genotype has an unknown field {unknown[0]!r}{did_you_mean(unknown[0], legal)}; "
                f"legal: {', '.join(sorted(legal))}"
            )
        for name in ("normal", "reduction"):
            if value.get(name) is None:
                raise GenotypeError(f"genotype has no {name!r} cell")
        sequence = value.get("sequence")
        return cls(
            normal=_parse_cell("normal", value["normal"]),
            reduction=_parse_cell("reduction", value["reduction"]),
            sequence=None if sequence is None else _parse_cell("sequence", sequence),
        )

    def to_json(self) -> str:
        """Return the genotype as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Parse JSON text. Raises :class:`GenotypeError`."""
        return cls.from_dict(files.parse_json(text, "genotype", GenotypeError))

    def save(self, path: Path) -> None:
        """Write the genotype as JSON, atomically. Raises :class:`WriteError`."""
        files.write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Genotype:
        """Read a JSON file. Raises :class:`GenotypeError` that names the file."""
        try:
            return cls.from_dict(files.read_json(path, GenotypeError))
        except GenotypeError as error:
            if str(path) in str(error):
                raise
            raise GenotypeError(f"{path}: {error}") from error


def _parse_cell(name: str, value: Any) -> CellGenotype:
    """Turn nested JSON lists into edges; the meaning is checked by the constructor."""
    if not isinstance(value, list):
        raise GenotypeError(f"cell {name!r} is a list of nodes, not {value!r}")
    nodes = []
    for index, node in enumerate(value):
        if not isinstance(node, list):
            raise GenotypeError(f"cell {name!r}, node {index}: a list of edges, not {node!r}")
        edges = []
        for edge in node:
            match edge:
                case [str(operation), int(source)] if not isinstance(source, bool):
                    edges.append(Edge(operation, source))
                case _:
                    raise GenotypeError(
                        f"cell {name!r}, node {index}: an edge is [operation, source], not {edge!r}"
                    )
        nodes.append(tuple(edges))
    return tuple(nodes)


def _check_cell(name: str, cell: CellGenotype, operations: tuple[str, ...]) -> None:
    if not cell:
        raise GenotypeError(f"cell {name!r} has no nodes; at least 1 is needed")
    legal = tuple(o for o in operations if o != NONE)
    for index, node in enumerate(cell):
        where = f"cell {name!r}, node {index}"
        if len(node) != EDGES_PER_NODE:
            raise GenotypeError(f"{where}: {len(node)} edges; legal: exactly {EDGES_PER_NODE}")
        for edge in node:
            if edge.operation not in legal:
                raise GenotypeError(
                    f"{where}: unknown operation {edge.operation!r}"
                    f"{did_you_mean(edge.operation, legal)}; legal: {', '.join(legal)}"
                )
            if not 0 <= edge.source < index + 2:
                raise GenotypeError(
                    f"{where}: an edge from state {edge.source}, which is not earlier; "
                    f"legal: 0 to {index + 1} (0 and 1 are the cell's inputs)"
                )
        if len({edge.source for edge in node}) != len(node):
            raise GenotypeError(
                f"{where}: both edges read state {node[0].source}; they must read different states"
            )
