"""Each layer of the library imports only layers before it, and no modules import each other in a circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    "core",
    "storage",
    "metrics",
    "data",
    "catalog",
    "prompts",
    "models",
    "decoding",
    "training",
    "evaluation",
    "tracking",
    "serving",
    "registry",
    "steps",
    "cli",
)
"""From the bottom up. ``registry`` stands above ``serving``: a registered version packages what serves it."""

ONLY_IN = {
    "mlflow": ("latentrec/tracking", "latentrec/registry", "latentrec/serving", "latentrec/steps"),
    "google": ("latentrec/storage",),
}


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


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def import_graph(folders: tuple[str, ...]) -> dict[str, set[str]]:
    paths = [path for folder in folders for path in python_files(folder)]
    packages = {module_name(path) for path in paths if path.name == "__init__.py"}
    modules = {module_name(path) for path in paths} - packages
    # a package's __init__ collects names; a circle is one between modules
    return {
        module_name(path): imported_modules(path) & modules for path in paths if module_name(path) in modules
    }


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_imports_only_layers_before_it(layer):
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    for path in python_files(f"latentrec/{layer}"):
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] == "latentrec" and len(parts) > 1 and parts[1] != "__version__":
                assert parts[1] in allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_every_folder_is_a_layer():
    assert {path.name for path in (ROOT / "latentrec").iterdir() if (path / "__init__.py").exists()} == set(
        LAYERS
    )


def test_no_modules_import_each_other_in_a_circle():
    graph = import_graph(("latentrec", "components", "pipeline"))
    state: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != 1, f"circle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if state.get(module) == 2:
            return
        state[module] = 1
        for imported in sorted(graph[module]):
            visit(imported, (*trail, module))
        state[module] = 2

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize(("library", "homes"), ONLY_IN.items())
def test_library_is_imported_in_its_layers_only(library, homes):
    for path in python_files("latentrec") + python_files("components") + python_files("pipeline"):
        if library in {module.split(".")[0] for module in imported_modules(path)}:
            assert str(path.relative_to(ROOT)).startswith(homes), (
                f"{path.relative_to(ROOT)} imports {library}"
            )


def test_kfp_is_known_only_to_components_and_pipeline():
    for path in python_files("latentrec"):
        modules = {module.split(".")[0] for module in imported_modules(path)}
        assert "kfp" not in modules, f"{path.relative_to(ROOT)} imports kfp"


@pytest.mark.parametrize("folder", ["latentrec", "components"])
def test_library_does_not_import_the_pipeline(folder):
    for path in python_files(folder):
        modules = {module.split(".")[0] for module in imported_modules(path)}
        assert "pipeline" not in modules, f"{path.relative_to(ROOT)} imports pipeline"
