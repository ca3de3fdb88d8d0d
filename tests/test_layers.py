"""The rooms of the house may import only what stands before them; three libraries live in one room each."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "core": set(),
    "storage": {"core"},
    "data": {"core", "storage"},
    "catalog": {"core", "storage", "data"},
    "prompts": {"core", "storage", "data"},
    "metrics": {"core", "storage", "data"},
}
for room, below in (
    ("models", "metrics"),
    ("decoding", "models"),
    ("training", "decoding"),
    ("evaluation", "training"),
    ("tracking", "evaluation"),
    ("cli", "tracking"),
):
    MAY_IMPORT[room] = set(MAY_IMPORT[below]) | {below} | {"catalog", "prompts", "metrics"}

ONLY_IN = {"mlflow": "latentrec/tracking", "google": "latentrec/storage"}


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_only_rooms_before_it(room):
    for path in python_files(f"latentrec/{room}"):
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] == "latentrec" and len(parts) > 1 and parts[1] not in ("__version__", room):
                assert parts[1] in MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {module}"


def test_every_room_is_under_the_rule():
    rooms = {path.name for path in (ROOT / "latentrec").iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize(("library", "home"), ONLY_IN.items())
def test_library_is_imported_in_one_room_only(library, home):
    for path in python_files("latentrec") + python_files("components") + python_files("pipeline"):
        if library in {module.split(".")[0] for module in imported_modules(path)}:
            assert str(path.relative_to(ROOT)).startswith(home), f"{path.relative_to(ROOT)} imports {library}"


def test_kfp_is_known_only_to_components_and_pipeline():
    for path in python_files("latentrec"):
        modules = {module.split(".")[0] for module in imported_modules(path)}
        assert "kfp" not in modules, f"{path.relative_to(ROOT)} imports kfp"


@pytest.mark.parametrize("folder", ["latentrec", "components"])
def test_library_does_not_import_the_pipeline(folder):
    for path in python_files(folder):
        modules = {module.split(".")[0] for module in imported_modules(path)}
        assert "pipeline" not in modules, f"{path.relative_to(ROOT)} imports pipeline"
