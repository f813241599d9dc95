"""Recipes: every setting of a run, its default, type and range. Nothing here loads torch."""

from __future__ import annotations

from emodarts.recipe.evaluation import LABEL_SCHEMES, ComputeSpec, EvaluationSpec
from emodarts.recipe.features import FEATURES, FeatureKind, FeatureSpec
from emodarts.recipe.loading import Header, builtin_recipes, load_recipe, read_header
from emodarts.recipe.network import CNNSpec, FixedSeqNN, NetworkSpec, NoSeqNN, SearchedSeqNN
from emodarts.recipe.recipe import Recipe, differing_keys
from emodarts.recipe.search import (
    STRATEGIES,
    ControllerSpec,
    DartsSpec,
    EvolutionSpec,
    HalvingSpec,
    OneShotSpec,
    RandomSpec,
    SearchSpec,
    SharedRandomSpec,
)
from emodarts.recipe.section import Kind
from emodarts.recipe.spaces import SPACES, Operation, Space
from emodarts.recipe.system import SYSTEMS, SystemSpec
from emodarts.recipe.training import AugmentationSpec, MaskSpec, PerturbationSpec, TrainingSpec

__all__ = [
    "FEATURES",
    "LABEL_SCHEMES",
    "SPACES",
    "STRATEGIES",
    "SYSTEMS",
    "AugmentationSpec",
    "CNNSpec",
    "ComputeSpec",
    "ControllerSpec",
    "DartsSpec",
    "EvaluationSpec",
    "EvolutionSpec",
    "FeatureKind",
    "FeatureSpec",
    "FixedSeqNN",
    "HalvingSpec",
    "Header",
    "Kind",
    "MaskSpec",
    "NetworkSpec",
    "NoSeqNN",
    "OneShotSpec",
    "Operation",
    "PerturbationSpec",
    "RandomSpec",
    "Recipe",
    "SearchSpec",
    "SearchedSeqNN",
    "SharedRandomSpec",
    "Space",
    "SystemSpec",
    "TrainingSpec",
    "builtin_recipes",
    "differing_keys",
    "load_recipe",
    "read_header",
]
