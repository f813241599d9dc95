"""The recipe: everything that decides what a run computes, as one frozen, checked value.

A recipe is YAML. Every key has a default, a type and a range; an unknown key, a wrong type
or an impossible value raises :class:`RecipeError` that names the key and what is allowed.
Defaults are the settings of emoDARTS (arXiv 2403.14083) where that paper gives them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Annotated, Any

import yaml
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from emodarts import files
from emodarts.errors import RecipeError, did_you_mean
from emodarts.genotype import SKIP
from emodarts.recipe.evaluation import LABEL_SCHEMES, ComputeSpec, EvaluationSpec, LabelSet
from emodarts.recipe.explain import explain
from emodarts.recipe.features import FEATURES, FeatureSpec, MfccSpec
from emodarts.recipe.network import NetworkSpec, SearchedSeqNN
from emodarts.recipe.search import DartsSpec, HalvingSpec, OneShotSpec, SearchSpec
from emodarts.recipe.section import Section
from emodarts.recipe.system import SearchedSpec, SystemSpec
from emodarts.recipe.training import TrainingSpec

#: Sections that only some systems use.
OPTIONAL_SECTIONS = ("network", "search", "training")


class Recipe(Section):
    """All settings of a run. See ``docs/recipes.md`` for each key."""

    name: str = "unnamed"
    """Label in reports; in a file, the default is the name of the file."""
    labels: LabelSet = None
    """Classes to keep, which fixes their order; by default all of the corpus. A class is a label of
    the corpus or a common name such as ``anger``; ``happy=hap,exc`` merges labels. Also a mapping
    (``happy: [hap, exc]``) or ``own``, ``four``, ``four-merged``, ``five``."""
    styles: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Styles of speech to keep, e.g. ``improvised`` of IEMOCAP; by default all."""
    features: FeatureSpec = MfccSpec()
    system: SystemSpec = SearchedSpec()
    network: NetworkSpec = NetworkSpec()
    search: SearchSpec = DartsSpec()
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    compute: ComputeSpec = ComputeSpec()

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        self._check_labels()
        inputs = self.inputs.values()  # which a system may refuse
        used = self.system.sections
        for section in OPTIONAL_SECTIONS:
            if section in self.model_fields_set and section not in used:
                allowed = ", ".join(s for s in OPTIONAL_SECTIONS if s in used) or "none of its own"
                raise ValueError(
                    f"section {section!r} does nothing with system {self.system.kind!r}; "
                    f"sections of that system: {allowed}"
                )
        if "training" in used:
            self._check_views(inputs)
        if "network" in used:
            self._check_cells()
            self._check_maps()
        if "search" in used:
            self._check_search()
        return self

    def _check_search(self) -> None:
        search, network = self.search, self.network
        if isinstance(search, OneShotSpec) and not network.nodes:
            raise ValueError(
                f"search.strategy {search.strategy!r}: the network has no cells to search; "
                "allowed: search: {strategy: random}, or cells in network.cnn or network.seqnn"
            )
        if isinstance(search, HalvingSpec) and search.proposals and not network.nodes:
            raise ValueError(
                f"search.proposals {search.proposals}: the network has no cells for DARTS; "
                "allowed: 0, or cells in network.cnn or network.seqnn"
            )
        if isinstance(search, DartsSpec):
            sizes = {"network.cnn.channels": network.cnn.channels if network.cnn.cells else 0}
            if isinstance(network.seqnn, SearchedSeqNN):
                sizes["network.seqnn.width"] = network.seqnn.width
            for key, size in sizes.items():
                if size % search.partial_channels:
                    raise ValueError(
                        f"search.partial_channels {search.partial_channels} does not divide "
                        f"{key} {size}; allowed: a divisor"
                    )
            for cell, operations in network.operations.items():
                if search.auxiliary_skip and SKIP not in operations:
                    raise ValueError(
                        f"search.auxiliary_skip needs {SKIP} among the candidates, and cell "
                        f"{cell!r} has {', '.join(operations)}; allowed: false, or a space with "
                        f"{SKIP}"
                    )
            if search.stages and "normal" not in network.cnn.cell_names:
                raise ValueError(
                    f"search.stages search normal cells, and with network.cnn.cells "
                    f"{network.cnn.cells} there is none; allowed: at least 3, or no stages"
                )

    def _check_labels(self) -> None:
        if self.labels is None:
            return
        names = [entry.partition("=")[0].strip() for entry in self.labels]
        if len(names) < 2 or not all(names):
            hint = did_you_mean(names[0], LABEL_SCHEMES) if names else ""
            allowed = f"at least 2 classes, named, or one of {', '.join(LABEL_SCHEMES)}"
            raise ValueError(f"labels {list(self.labels)}{hint}; allowed: {allowed}")
        if len(set(names)) != len(names):
            raise ValueError(f"labels {list(self.labels)} lists a class twice")

    def _check_views(self, inputs: Iterable[FeatureSpec]) -> None:
        features, training = self.features, self.training
        if training.crop is not None and training.crop > features.duration:
            raise ValueError(
                f"training.crop {training.crop:g} s exceeds features.duration, "
                f"{features.duration:g} s"
            )
        one_speed = training.test_speeds == (1.0,)
        for key, unchanged, allowed in (
            ("crop", training.crop is None, "null"),
            ("test_speeds", one_speed, "[1.0]"),
        ):
            if not unchanged and not self.system.any_length:
                raise ValueError(
                    f"training.{key}: system {self.system.kind!r} has weights for every frame of "
                    f"features.duration; allowed: {allowed}"
                )
        perturbation = training.perturbation
        of_bands = {
            "perturbation.speed": perturbation.speed is not None,
            "perturbation.vtlp": perturbation.vtlp is not None,
            "perturbation.equaliser": perturbation.equaliser > 0.0,
            "test_speeds": not one_speed,
        }
        asked = [key for key, is_on in of_bands.items() if is_on]
        specs = list(inputs)
        without = [spec.kind for spec in specs if not spec.has_bands]
        if asked and without:
            with_bands = [name for name, kind in FEATURES.items() if kind.spec.has_bands]
            raise ValueError(
                f"training.{asked[0]} changes frequencies, and features of kind "
                f"{without[0]!r} have no frequency axis; allowed: {', '.join(with_bands)}"
            )
        if asked and len(specs) > 1:
            raise ValueError(
                f"training.{asked[0]} changes the frequencies of one map, and system "
                f"{self.system.kind!r} joins {len(specs)}; allowed: without it"
            )

    def _check_cells(self) -> None:
        searched, trained = self.network.cnn, self.trained_network.cnn
        if set(trained.cell_names) - set(searched.cell_names):
            raise ValueError(
                f"system.cells {trained.cells} needs a normal cell, and network.cnn.cells "
                f"{searched.cells} searches none: all of its cells are reduction cells; allowed: "
                "system.cells 1 or 2, or network.cnn.cells of at least 3"
            )

    def _check_maps(self) -> None:
        sizes = {"frequency": self.features.n_features, "time": self.features.n_frames}
        shape = " x ".join(map(str, sizes.values()))
        for network in (self.network, self.trained_network):
            reductions = len(network.cnn.reductions)
            smallest = [prod(strides) * 2**reductions for strides in network.stem_strides]
            for (axis, size), least in zip(sizes.items(), smallest, strict=True):
                if size < least:
                    raise ValueError(
                        f"features of {shape} (frequency x time) are too small: the stem's strides "
                        f"and {reductions} reduction cells, which halve each axis, leave nothing "
                        f"of {axis}; allowed: at least {least}"
                    )
            if list(sizes.values()) == smallest:
                raise ValueError(
                    f"features of {shape} are reduced to a single value, which batch norm cannot "
                    f"normalise; allowed: one axis larger than {' x '.join(map(str, smallest))}"
                )

    @model_serializer(mode="wrap")
    def _without_unused_sections(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        value: dict[str, Any] = serialise(self)
        used = self.system.sections
        return {k: v for k, v in value.items() if k not in OPTIONAL_SECTIONS or k in used}

    @property
    def inputs(self) -> dict[str, FeatureSpec]:
        """Feature maps that the system takes, by name."""
        return self.system.inputs(self.features)

    @property
    def searches(self) -> bool:
        """Whether there is a genotype to search: cells, or choices around them."""
        network = self.network
        return "search" in self.system.sections and bool(network.nodes or network.macro)

    @property
    def trained_network(self) -> NetworkSpec:
        """The network that is trained: the searched one, or deeper or wider where asked for.

        Raises ``ValueError`` for SeqNN cells where no SeqNN is searched.
        """
        system = self.system
        if not isinstance(system, SearchedSpec):
            return self.network
        changes = {"cells": system.cells, "channels": system.channels}
        cnn = self.network.cnn.model_copy(update={k: v for k, v in changes.items() if v})
        seqnn = self.network.seqnn
        if system.seqnn_cells is not None:
            if not isinstance(seqnn, SearchedSeqNN):
                raise ValueError(
                    "system.seqnn_cells needs a searched SeqNN; "
                    f"network.seqnn.mode is {seqnn.mode!r}"
                )
            seqnn = seqnn.model_copy(update={"cells": system.seqnn_cells})
        return self.network.model_copy(update={"cnn": cnn, "seqnn": seqnn})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values with every key; :meth:`from_dict` is the inverse."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Check and build a recipe. Raises :class:`RecipeError`, one line for each fault."""
        try:
            # Through JSON, so that strict types still take a list for a tuple.
            return cls.model_validate_json(json.dumps(value, allow_nan=True))
        except ValidationError as error:
            raise RecipeError(explain(cls, error, where, value)) from error
        except RecipeError as error:  # sizes that are not known yet
            raise RecipeError(f"{where}: {error}") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise RecipeError(f"{where}: {error}; keys and values are plain YAML") from error

    def to_yaml(self) -> str:
        """Return the whole recipe as YAML text."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def digest(self) -> str:
        """Identify what each trial computes: SHA-256 over all keys that :func:`differing_keys`
        compares."""
        return files.digest_of(self._decisive())

    def _decisive(self) -> dict[str, Any]:
        """All keys but the name, those of ``compute``, and which folds and seeds are run."""
        value = self.to_dict()
        del value["name"], value["compute"]
        del value["evaluation"]["folds"], value["evaluation"]["seeds"]
        return value


def differing_keys(recipes: Sequence[Recipe]) -> dict[str, tuple[Any, ...]]:
    """Dotted keys in which recipes differ, and the values of each recipe.

    Left out are the name, ``compute``, which folds and seeds are run, and keys that not all recipes
    have, as they follow from a kind that is listed.
    """
    return dict(_differences([recipe._decisive() for recipe in recipes], ""))


def _differences(
    values: Sequence[Mapping[str, Any]], prefix: str
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for key in values[0]:
        if not all(key in value for value in values):
            continue
        found = tuple(value[key] for value in values)
        if all(isinstance(each, Mapping) for each in found):
            yield from _differences(found, f"{prefix}{key}.")
        elif any(each != found[0] for each in found):
            yield prefix + key, found
