"""What every section of a recipe shares, and sections whose keys depend on a kind.

Features, search strategies and systems are *kinds*: entries of a literal dictionary from a name to
a class of keys and to what carries them out, which is named as text and loaded on first use, so
that a recipe is checked without loading torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from emodarts.errors import did_you_mean

PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Frozen keys; an unknown one and a wrong type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The class of keys that a field holds, alone or ``| None``, if it holds one."""
    for choice in (annotation, *get_args(annotation)):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def load(reference: str | Callable[..., Any]) -> Callable[..., Any]:
    """What ``"module:name"`` names, imported now; anything but text is returned as it is."""
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


_Spec = TypeVar("_Spec", bound="KindSection")


@dataclass(frozen=True)
class Kind(Generic[_Spec]):
    """An entry of a table of kinds.

    Attributes
    ----------
    spec : class of the keys.
    implementation : what is called with a spec, or ``"module:name"`` of it.
    """

    spec: type[_Spec]
    implementation: str | Callable[..., Any]

    def build(self, spec: _Spec) -> Any:
        """Load the implementation and make it with the keys of ``spec``."""
        return load(self.implementation)(spec)


def is_family(section: type[BaseModel]) -> bool:
    """Whether a class stands for all kinds of its table, and not for one of them."""
    return "default_kind" in vars(section)


class KindSection(Section):
    """A section whose keys are those of its kind.

    A subclass with a ``default_kind`` is a family: it names the key of the kind and the table.
    The family called with keys, and a mapping in a recipe, become the class of their kind.
    """

    kind_key: ClassVar[str] = "kind"
    default_kind: ClassVar[str]

    @classmethod
    def kinds(cls) -> Mapping[str, Kind[Any]]:
        """The table of the family."""
        raise NotImplementedError

    def __new__(cls, **keys: Any) -> KindSection:
        return super().__new__(cls._class_of(keys) if is_family(cls) else cls)

    @classmethod
    def _class_of(cls, keys: Mapping[str, Any]) -> type[KindSection]:
        """Class of the kind that ``keys`` name; raises pydantic's error at the key that does."""
        kinds = cls.kinds()
        kind = keys.get(cls.kind_key, cls.default_kind)
        if isinstance(kind, str) and kind in kinds:
            found: type[KindSection] = kinds[kind].spec
            return found
        near = did_you_mean(kind, kinds) if isinstance(kind, str) else ""
        fault = PydanticCustomError(
            "unknown_kind",
            "unknown {key}{near}; allowed: {allowed}",
            {"key": cls.kind_key, "near": near, "allowed": ", ".join(kinds)},
        )
        raise ValidationError.from_exception_data(
            cls.__name__, [{"type": fault, "loc": (cls.kind_key,), "input": kind}]
        )

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = handler(source)
        if not is_family(cls):  # a kind checks its own keys
            return schema

        def of_its_kind(value: Any, own: core_schema.ValidatorFunctionWrapHandler) -> KindSection:
            if not isinstance(value, dict):
                other: KindSection = own(value)
                return other
            try:
                text = json.dumps(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{error}; keys and values are plain YAML") from error
            # Through JSON, so that strict types still take a list for a tuple.
            return cls._class_of(value).model_validate_json(text)

        def keys_of_its_kind(value: KindSection, info: core_schema.SerializationInfo) -> Any:
            return value.model_dump(mode=info.mode)

        return core_schema.no_info_wrap_validator_function(
            of_its_kind,
            schema,
            serialization=core_schema.plain_serializer_function_ser_schema(
                keys_of_its_kind, info_arg=True
            ),
        )

    @model_validator(mode="after")
    def _possible(self) -> KindSection:
        self.check()
        return self

    def check(self) -> None:
        """Raise ``ValueError`` for values that cannot be used together."""
