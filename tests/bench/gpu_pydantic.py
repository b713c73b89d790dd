"""Stands in for pydantic where it is not installed, for the config's values alone.

A machine with a GPU often has torch and nothing else, and no network. The benchmarks need of a
config only that its keys have their defaults or what they are given: here nothing is checked.
Imported before the library; where pydantic is installed nothing happens.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Self


class FieldDefault:
    """What stands beside a key: its default."""

    def __init__(self, default: object = ..., **_: object) -> None:
        self.default = default


class PlainModel:
    """Keys with values; those of its bases come first."""

    def __init__(self, **values: object) -> None:
        for base in reversed(type(self).__mro__):
            for name, default in list(vars(base).items()):
                if name in getattr(base, "__annotations__", {}):
                    self.__dict__[name] = getattr(default, "default", default)
        unknown = values.keys() - self.__dict__.keys()
        if unknown:
            msg = f"expected keys of {type(self).__name__}, found {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        self.__dict__.update(values)

    @classmethod
    def model_validate(cls, values: Mapping[str, object]) -> Self:
        """A model with these values."""
        return cls(**values)


def unchanged(*_: object, **__: object) -> Callable[[Any], Any]:
    """A decorator that leaves what it decorates."""
    return lambda function: function


def stand_in() -> ModuleType:
    """A module with the names that the config imports."""
    module = ModuleType("pydantic")
    names = {
        "AfterValidator": unchanged, "BaseModel": PlainModel, "BeforeValidator": unchanged,
        "ConfigDict": dict, "Field": FieldDefault, "field_validator": unchanged,
        "model_validator": unchanged,
    }  # fmt: skip
    vars(module).update(names)
    return module


def is_installed() -> bool:
    """Whether pydantic itself is there."""
    return "pydantic" in sys.modules or importlib.util.find_spec("pydantic") is not None


if not is_installed():
    sys.modules["pydantic"] = stand_in()
