"""What is wrong with a recipe: one line for each fault, with key, value and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from emodarts.errors import did_you_mean
from emodarts.recipe.network import FixedSeqNN, NoSeqNN, SearchedSeqNN
from emodarts.recipe.section import KindSection, is_family, section_of

_SEQNN: dict[str, type[BaseModel]] = {
    "searched": SearchedSeqNN,
    "fixed": FixedSeqNN,
    "none": NoSeqNN,
}


def explain(
    model: type[BaseModel], error: ValidationError, where: str, value: Mapping[str, Any]
) -> str:
    """Turn pydantic's report on ``value`` for ``model`` into one line for each fault."""
    lines = []
    for fault in error.errors():
        place = [str(p) for p in fault["loc"]]
        if "seqnn" in place:
            # The part after it is the mode that pydantic checked against, not a key.
            after = place.index("seqnn") + 1
            del place[after : after + 1]
        key = ".".join(place)
        if fault["type"] == "extra_forbidden":
            owner = _model_at(model, fault["loc"][:-1], value)
            keys = list(owner.model_fields)
            lines.append(
                f"unknown key {key!r}{did_you_mean(place[-1], keys)}; allowed: {', '.join(keys)}"
            )
            if issubclass(owner, KindSection) and any(
                place[-1] in kind.spec.model_fields for kind in owner.kinds().values()
            ):
                lines.append(_another_kind(owner, place[:-1], value))
        elif fault["type"] == "value_error":
            lines.append(": ".join(filter(None, (key, str(fault["ctx"]["error"])))))
        else:
            lines.append(f"{key}: {fault['input']!r}: {fault['msg']}")
    return f"{where}: " + "; ".join(dict.fromkeys(lines))


def key_names(model: type[BaseModel], prefix: str = "") -> dict[str, None]:
    """Dotted names of all keys in and below a section, of every kind, in order."""
    found: dict[str, None] = {}
    for name, field in model.model_fields.items():
        inner = section_of(field.annotation)
        # A list of sections, and a kind within another kind, are values of one key.
        if get_origin(field.annotation) is tuple or (
            inner is not None and issubclass(inner, KindSection) and not is_family(inner)
        ):
            inner = None
        below: list[type[BaseModel]] = [] if inner is None else [inner]
        if name == "seqnn":
            below = list(_SEQNN.values())
        elif inner is not None and issubclass(inner, KindSection):
            below = [kind.spec for kind in inner.kinds().values()]
        for each in below:
            found |= key_names(each, f"{prefix}{name}.")
        if not below:
            found[prefix + name] = None
    return found


def _another_kind(owner: type[KindSection], place: list[str], value: Mapping[str, Any]) -> str:
    """What to do where the keys of one kind were given to another."""
    inner: Any = value
    for part in place:
        inner = inner[part]
    key = owner.kind_key
    kind = inner.get(key, owner.default_kind)
    return (
        f"each {key} has keys of its own: give the whole section, e.g. "
        f"--set '{'.'.join(place)}={{{key}: {kind}}}'"
    )


def _model_at(
    model: type[BaseModel], location: tuple[int | str, ...], value: Any
) -> type[BaseModel]:
    """The class of keys at a location of ``value``."""
    for part in location:
        if part in _SEQNN:
            model = _SEQNN[str(part)]
            continue
        value = value.get(part) if isinstance(value, dict) else None
        field = model.model_fields.get(str(part))
        inner = None if field is None else section_of(field.annotation)
        if inner is not None:
            model = inner
            if issubclass(inner, KindSection):
                given = value if isinstance(value, dict) else {}
                model = inner.kinds()[given.get(inner.kind_key, inner.default_kind)].spec
    return model
