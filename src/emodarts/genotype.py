"""The genotype that a search ends with: a frozen value and its JSON.

This module needs neither torch nor numpy, so a genotype can be read anywhere. Which operations
exist is a matter of the search space (:mod:`emodarts.recipe.spaces`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emodarts import files
from emodarts.errors import GenotypeError, did_you_mean

NONE = "none"
SKIP = "skip_connect"

#: Every node of a derived cell keeps this many incoming edges.
EDGES_PER_NODE = 2
FORMAT = "emodarts.genotype/1"
CELLS = ("normal", "reduction", "sequence")


@dataclass(frozen=True, slots=True)
class Edge:
    """An operation and the state it reads: 0 and 1 are the cell's inputs, 2 the first node."""

    operation: str
    source: int


#: A cell is one pair of edges for each intermediate node, in order.
CellGenotype = tuple[tuple[Edge, ...], ...]


@dataclass(frozen=True, slots=True)
class Genotype:
    """What a search ends with: discrete cells, and choices of the network around them.

    Attributes
    ----------
    normal, reduction : CNN cells, or None where the network has no such cell; every node reads two
        different earlier states.
    sequence : SeqNN cell, or None where the SeqNN is fixed or absent.
    macro : JSON values of keys of section ``network`` that the genotype decides, by dotted name,
        e.g. ``{"pooling": "mean", "stem.time_strides": [2, 2, 1, 1]}``.

    Raises
    ------
    GenotypeError
        For the operation ``none``, an edge from the node itself or from a later one, two
        edges from the same state, a wrong number of edges, or a cell without nodes.
    """

    normal: CellGenotype | None = None
    reduction: CellGenotype | None = None
    sequence: CellGenotype | None = None
    macro: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, cell in self.cells.items():
            _check_cell(name, cell)
        if self.normal and self.reduction and len(self.normal) != len(self.reduction):
            raise GenotypeError(
                f"the normal cell has {len(self.normal)} nodes and the reduction cell "
                f"{len(self.reduction)}; both need the same number"
            )

    @property
    def cells(self) -> dict[str, CellGenotype]:
        """The cells that there are, by name."""
        cells = {name: getattr(self, name) for name in CELLS}
        return {name: cell for name, cell in cells.items() if cell is not None}

    def require(self, operations: Mapping[str, Collection[str]]) -> None:
        """Raise :class:`GenotypeError` unless there are these cells with these operations only.

        Parameters
        ----------
        operations : allowed operations by cell. A CNN cell that no position of the network has is
            allowed, too: another depth may have it.
        """
        has = ", ".join(operations) or "none"
        for name in operations:
            if name not in self.cells:
                raise GenotypeError(
                    f"the genotype has no {name} cell; the network has the cells: {has}"
                )
        for name, cell in self.cells.items():
            if name not in operations:
                if name != "sequence" and {"normal", "reduction"} & set(operations):
                    continue
                raise GenotypeError(
                    f"the genotype has a {name} cell; the network has the cells: {has}"
                )
            allowed = [o for o in operations[name] if o != NONE]
            for index, node in enumerate(cell):
                for edge in node:
                    if edge.operation not in allowed:
                        raise GenotypeError(
                            f"cell {name!r}, node {index}: unknown operation {edge.operation!r}"
                            f"{did_you_mean(edge.operation, allowed)}; allowed in the search "
                            f"space: {', '.join(allowed)}"
                        )

    def skip_counts(self) -> dict[str, int]:
        """Number of ``skip_connect`` edges of each cell: many of them mark a collapsed search."""
        return {
            name: sum(edge.operation == SKIP for node in cell for edge in node)
            for name, cell in self.cells.items()
        }

    def collapsed_cells(self) -> list[str]:
        """Cells that more than half of the edges pass through unchanged, by ``skip_connect``."""
        edges = {name: sum(map(len, cell)) for name, cell in self.cells.items()}
        return [name for name, skips in self.skip_counts().items() if 2 * skips > edges[name]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` is the inverse."""
        cells: dict[str, Any] = {
            name: [[[edge.operation, edge.source] for edge in node] for node in cell]
            for name, cell in self.cells.items()
        }
        return {"format": FORMAT, "macro": dict(self.macro), **dict.fromkeys(CELLS), **cells}

    @classmethod
    def from_dict(cls, value: Any) -> Genotype:
        """Check and build a genotype from JSON values. Raises :class:`GenotypeError`."""
        if not isinstance(value, dict):
            raise GenotypeError(f"a genotype is a JSON object, not {type(value).__name__}")
        if value.get("format") != FORMAT:
            raise GenotypeError(f"genotype format is {value.get('format')!r}; allowed: {FORMAT!r}")
        legal = {"format", "macro", *CELLS}
        unknown = sorted(set(value) - legal)
        if unknown:
            raise GenotypeError(
                f"genotype has an unknown field {unknown[0]!r}{did_you_mean(unknown[0], legal)}; "
                f"allowed: {', '.join(sorted(legal))}"
            )
        macro = value.get("macro", {})
        if not isinstance(macro, dict) or not all(isinstance(key, str) for key in macro):
            raise GenotypeError(
                f"macro is an object of keys of section network and their values, not {macro!r}"
            )
        cells = {name: value[name] for name in CELLS if value.get(name) is not None}
        return cls(**{name: _parse_cell(name, cell) for name, cell in cells.items()}, macro=macro)

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


def _check_cell(name: str, cell: CellGenotype) -> None:
    if not cell:
        raise GenotypeError(f"cell {name!r} has no nodes; at least 1 is needed")
    for index, node in enumerate(cell):
        where = f"cell {name!r}, node {index}"
        if len(node) != EDGES_PER_NODE:
            raise GenotypeError(f"{where}: {len(node)} edges; allowed: exactly {EDGES_PER_NODE}")
        for edge in node:
            if edge.operation == NONE:
                raise GenotypeError(f"{where}: operation {NONE!r} cannot be on an edge")
            if not 0 <= edge.source < index + 2:
                raise GenotypeError(
                    f"{where}: an edge from state {edge.source}, which is not earlier; "
                    f"allowed: 0 to {index + 1} (0 and 1 are the cell's inputs)"
                )
        if len({edge.source for edge in node}) != len(node):
            raise GenotypeError(
                f"{where}: both edges read state {node[0].source}; they must read different states"
            )
