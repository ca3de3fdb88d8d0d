"""Names that a package offers and imports only when they are used: a configuration then needs no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, modules: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package (PEP 562); type checkers read its ``if TYPE_CHECKING`` block instead.

    Args:
        package: the package's ``__name__``.
        modules: for each of its modules, by its short name, the names that the package offers from it. A
            name must not be that of one of the package's modules: Python would find the module.
    """
    home = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    return find
