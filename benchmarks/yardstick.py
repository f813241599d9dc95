"""What a fast search is measured against: the plain eager supernet of DARTS.

One module a candidate and edge, contiguous NCHW maps, operations in the order of DARTS (a separable
convolution is applied twice), ``nn.LSTM`` and ``nn.RNN``, oneDNN as torch uses it. Written apart
from the package and never slowed. Its names are those of the package's supernet, so that one
loads the weights of the other.

Where the project differs from the published code by design, the yardstick follows the project, or
it could not have the same weights: sequence operations run over time and project their context to
H, and linear layers bring the inputs of SeqNN cells to H (the published code bins features, and its
candidates hold 79 M weights in space ``lstm_att`` and 211 M in ``all``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.recipe import NetworkSpec, SearchedSeqNN


def _separable(c: int, kernel: int, stride: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    return [
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, stride, padding, dilation, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        nn.BatchNorm2d(c, affine=False),
    ]


class FactorizedReduce(nn.Module):
    """ReLU, two 1x1 convolutions of stride 2, one shifted by a position, batch norm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, T)``, both sizes even -> ``(B, D, F / 2, T / 2)``."""
        x = functional.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


def _cnn_candidates(c: int, stride: int) -> list[nn.Module]:
    return [
        nn.Sequential(nn.MaxPool2d(3, stride, 1), nn.BatchNorm2d(c, affine=False)),
        nn.Sequential(
            nn.AvgPool2d(3, stride, 1, count_include_pad=False), nn.BatchNorm2d(c, affine=False)
        ),
        nn.Identity() if stride == 1 else FactorizedReduce(c, c),
        nn.Sequential(*_separable(c, 3, stride, 1), *_separable(c, 3, 1, 1)),
        nn.Sequential(*_separable(c, 5, stride, 1), *_separable(c, 5, 1, 1)),
        nn.Sequential(*_separable(c, 3, stride, 2)),
        nn.Sequential(*_separable(c, 5, stride, 2)),
    ]


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (torch.softmax(self.score(x), dim=1) * x).sum(dim=1)


class _Recurrent(nn.Module):
    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        kind, *attention, layers = name.split("_")
        build = nn.LSTM if kind == "lstm" else nn.RNN
        both = bool(attention)
        self.recurrent = build(width, width, int(layers), batch_first=True, bidirectional=both)
        self.attention = _Attention(2 * width) if both else None
        if both:
            self.project = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.recurrent(x)[0]
        if self.attention is None:
            return steps
        context = self.attention(steps)[:, None].expand_as(steps)
        return self.project(torch.cat([steps, context], dim=-1))


class _Mixed(nn.Module):
    def __init__(self, operations: Sequence[nn.Module]) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * o(x) for w, o in zip(weights, self.operations, strict=False))  # type: ignore[return-value]


class _Cell(nn.Module):
    def __init__(self, inputs: list[nn.Module], edges: list[nn.Module], dim: int) -> None:
        super().__init__()
        self.inputs, self.edges = nn.ModuleList(inputs), nn.ModuleList(edges)
        self.dim = dim

    def forward(self, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
        states = [self.inputs[0](first), self.inputs[1](second)]
        done = 0
        while done < len(self.edges):
            edges = range(done, done + len(states))
            states.append(sum(self.edges[e](s, weights[e]) for e, s in zip(edges, states)))  # type: ignore[arg-type]  # noqa: B905
            done += len(edges)
        return torch.cat(states[2:], dim=self.dim)


def _project(c_in: int, c_out: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out, affine=False)
    )


class _Network(nn.Module):
    def __init__(self, spec: NetworkSpec, n_features: int, n_classes: int) -> None:
        super().__init__()
        cnn, seqnn = spec.cnn, spec.seqnn
        if not isinstance(seqnn, SearchedSeqNN):
            raise TypeError(f"the yardstick has a searched SeqNN, not mode {seqnn.mode!r}")
        c = 3 * cnn.channels
        self.stem = nn.Sequential(nn.Conv2d(1, c, 3, padding=1, bias=False), nn.BatchNorm2d(c))
        self.dropout = nn.Dropout(spec.dropout)
        self.names = ["reduction" if k in cnn.reductions else "normal" for k in range(cnn.cells)]
        maps, halved, channels = [(c, n_features)] * 2, False, cnn.channels
        self.cnn_cells = nn.ModuleList()
        for name in self.names:
            reduces = name == "reduction"
            channels *= 1 + reduces
            edges = [
                _Mixed(_cnn_candidates(channels, 2 if reduces and source < 2 else 1))
                for node in range(cnn.nodes)
                for source in range(node + 2)
            ]
            first = (FactorizedReduce if halved else _project)(maps[0][0], channels)
            second = _project(maps[1][0], channels)
            self.cnn_cells.append(_Cell([first, second], edges, 1))
            maps = [maps[1], (cnn.nodes * channels, maps[1][1] // (1 + reduces))]
            halved = reduces
        widths = [a * f for a, f in maps]
        h = seqnn.width
        self.sequence_cells = nn.ModuleList()
        for _ in range(seqnn.cells):
            edges = [
                _Mixed(
                    [
                        nn.Identity() if o == "skip_connect" else _Recurrent(o, h)
                        for o in list(seqnn.operations)[:-1]
                    ]
                )
                for _ in range(seqnn.nodes * (seqnn.nodes + 3) // 2)
            ]
            self.sequence_cells.append(_Cell([nn.Linear(w, h) for w in widths], edges, -1))
            widths = [widths[1], seqnn.nodes * h]
        self.attention = _Attention(widths[1])
        self.classifier = nn.Linear(widths[1], n_classes)

    def cnn_maps(self, x: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
        maps = [self.stem(x)] * 2
        for name, cell in zip(self.names, self.cnn_cells, strict=True):
            maps.append(self.dropout(cell(maps[-2], maps[-1], weights[name])))
        return maps

    def classify(self, maps: Sequence[Tensor], weights: dict[str, Tensor]) -> Tensor:
        before, x = (m.flatten(1, 2).transpose(1, 2) for m in maps)
        if before.shape[1] != x.shape[1]:
            before = functional.avg_pool1d(before.transpose(1, 2), 2).transpose(1, 2)
        for cell in self.sequence_cells:
            before, x = x, self.dropout(cell(before, x, weights["sequence"]))
        return self.classifier(self.attention(x))


class Yardstick(nn.Module):
    """The plain supernet; loads the state dict of ``searching.supernet.Supernet`` strictly.

    ``spec`` joins frequency, pools by attention and has a searched SeqNN; the sizes of features
    are divisible by 4.
    """

    def __init__(self, spec: NetworkSpec, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.network = _Network(spec, n_features, n_classes)
        cnn_edges = len(self.network.cnn_cells[0].edges)
        shapes = {"normal": (cnn_edges, 8), "reduction": (cnn_edges, 8)}
        sequence_edges = len(self.network.sequence_cells[0].edges)
        shapes["sequence"] = (sequence_edges, len(spec.seqnn.operations))  # type: ignore[union-attr]
        self.alphas = nn.ParameterDict({k: torch.zeros(s) for k, s in shapes.items()})

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, 1, F, T)`` -> logits ``(B, K)``."""
        weights = self.edge_weights()
        return self.network.classify(self.network.cnn_maps(features, weights)[-2:], weights)

    def edge_weights(self) -> dict[str, Tensor]:
        """Softmax of each alpha over the candidates."""
        return {name: torch.softmax(alpha, dim=-1) for name, alpha in self.alphas.items()}

    def weight_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters but the alphas, by name."""
        return {f"network.{k}": p for k, p in self.network.named_parameters()}

    def alpha_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters by cell name."""
        return dict(self.alphas.named_parameters())
