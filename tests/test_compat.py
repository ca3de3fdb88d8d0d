"""What a library does not promise to keep is used in that library's one ``compat`` module."""

import ast

import pytest

from tests.test_layers import ROOT, python_files

COMPAT = {
    "kfp": "pipeline/kfp_compat.py",
    "mlflow": "latentrec/tracking/mlflow_compat.py",
    "transformers": "latentrec/training/common/trainer_compat.py",
    "trl": "latentrec/training/common/trainer_compat.py",
    "google": "",
}
"""Library → its module; empty: nothing of it is replaced or private."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def sources(library: str):
    for folder in ("latentrec", "components", "pipeline"):
        for path in python_files(folder):
            if path.relative_to(ROOT).as_posix() != COMPAT[library]:
                yield path, ast.parse(path.read_text())


def private_uses(tree: ast.Module, library: str) -> list[str]:
    """Private names of a library that are read, and names of it that are assigned to."""
    names, found = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == library:
            names |= {alias.asname or alias.name for alias in node.names}
            found += [alias.name for alias in node.names if is_private(alias.name)]
            found += [node.module] * any(is_private(part) for part in node.module.split("."))
        elif isinstance(node, ast.Import):
            names |= {
                (alias.asname or alias.name).split(".")[0]
                for alias in node.names
                if alias.name.split(".")[0] == library
            }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                root = root.value
            of_library = isinstance(root, ast.Name) and root.id in names
            if of_library and (is_private(node.attr) or isinstance(node.ctx, ast.Store | ast.Del)):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("library", COMPAT)
def test_private_names_and_patches_stand_in_the_compat_module(library):
    found = {
        path.relative_to(ROOT).as_posix(): private_uses(tree, library) for path, tree in sources(library)
    }
    assert {path: uses for path, uses in found.items() if uses} == {}


def test_private_methods_of_trainers_are_overridden_in_the_compat_module():
    from transformers import Trainer
    from trl import GRPOTrainer, SFTTrainer

    engines = (Trainer, GRPOTrainer, SFTTrainer)
    private = {name for engine in engines for name in dir(engine) if is_private(name)}
    found = []
    for path, tree in sources("trl"):
        if "training" not in path.parts:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any("Trainer" in ast.unparse(base) for base in node.bases):
                methods = [entry.name for entry in node.body if isinstance(entry, ast.FunctionDef)]
                found += [f"{path.name}: {node.name}.{name}" for name in methods if name in private]
    assert found == []


@pytest.mark.parametrize("library", [library for library in COMPAT if COMPAT[library]])
def test_the_compat_module_is_needed(library):
    tree = ast.parse((ROOT / COMPAT[library]).read_text())
    hooks = [
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and is_private(node.name)
    ]
    assert private_uses(tree, library) or hooks
