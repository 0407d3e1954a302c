"""timm without torchvision, which does not import beside a CPU torch: timm asks it only for image transforms."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_AFFECTED = ("torchvision", "timm", "dynamic_network_architectures.architectures.primus")


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Module(ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = _Anything(name, (), {"__init__": lambda self, *_, **__: None})
        setattr(self, name, found)
        return found


class _Finder:
    """Answers every import below torchvision."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, _Finder()) if name.partition(".")[0] == "torchvision" else None

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Nothing to run."""


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in _AFFECTED or name in _AFFECTED]:
        del sys.modules[name]


@contextmanager
def stand_in() -> Iterator[None]:
    """For the time of the block, torchvision is a shell and timm imports."""
    _forget()
    sys.meta_path.insert(0, _Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(_Finder)
        _forget()
