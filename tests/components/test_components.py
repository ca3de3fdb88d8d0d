"""Components have typed interfaces: light to import, short, documented, in images of our own."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from components.images import IMAGES, image
from components.readme import HERE, component_names, load, readme
from tests.errors import refused

NAMES = component_names()


def test_every_folder_is_a_component_with_a_readme():
    folders = {path.name for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_readme_is_the_interface(name):
    written = (HERE / name / "README.md").read_text(encoding="utf-8")
    assert written == readme(name), "run: python -m components.readme"


@pytest.mark.parametrize("name", NAMES)
def test_every_input_and_output_is_described(name):
    spec = load(name).component_spec
    for key, entry in {**(spec.inputs or {}), **(spec.outputs or {})}.items():
        if "TaskFinalStatus" not in entry.type and key != "Output":
            assert entry.description, f"{name}.{key} has no description"


@pytest.mark.parametrize("name", NAMES)
def test_body_is_a_handful_of_statements(name):
    tree = ast.parse((HERE / name / "component.py").read_text(encoding="utf-8"))
    (function,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    assert len(statements) <= 14


@pytest.mark.parametrize("name", NAMES)
def test_runs_in_an_image_of_ours_and_installs_nothing(name):
    container = load(name).component_spec.implementation.container
    assert container.image.rsplit("/", 1)[-1].split(":")[0] in IMAGES
    assert "pip install" not in " ".join(container.command)


def test_importing_components_loads_nothing_heavy():
    code = (
        "import sys, importlib, components.readme as r\n"
        "[r.load(name) for name in r.component_names()]\n"
        "print([m for m in ('torch', 'mlflow', 'transformers', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert run.stdout.strip() == "[]"


def test_image_name_from_the_environment(monkeypatch):
    monkeypatch.setenv("IMAGE_REGISTRY", "europe-docker.pkg.dev/p/r")
    monkeypatch.setenv("IMAGE_TAG", "abc123")
    assert image("train") == "europe-docker.pkg.dev/p/r/train:abc123"


def test_latest_is_refused(monkeypatch):
    monkeypatch.setenv("IMAGE_TAG", "latest")
    with refused("images.moving_tag"):
        image("train")


def test_release_needs_the_lock(monkeypatch, tmp_path):
    monkeypatch.setenv("RELEASE", "1")
    monkeypatch.setenv("IMAGE_LOCK", str(tmp_path / "images.lock.json"))
    with refused("images.unreadable_lock"):
        image("train")


@pytest.mark.parametrize(
    ("lock", "code", "named"),
    [
        ('{"registry": "elsewhere", "digests": {}}', "images.other_registry", "elsewhere"),
        (
            '{"registry": "localhost/latentrec", "digests": {"train": "v1"}}',
            "images.no_digest",
            "'train'",
        ),
    ],
)
def test_release_takes_digests_of_this_registry_only(monkeypatch, tmp_path, lock, code, named):
    (tmp_path / "images.lock.json").write_text(lock)
    monkeypatch.setenv("RELEASE", "1")
    monkeypatch.delenv("IMAGE_REGISTRY", raising=False)
    monkeypatch.setenv("IMAGE_LOCK", str(tmp_path / "images.lock.json"))
    with refused(code, named):
        image("train")


def test_the_preflight_component_returns_the_configurations_that_the_library_returns():
    """One that only a command has, and no pipeline, once made every run fail in its first step."""
    from components.preflight.component import preflight
    from latentrec.steps.parameters import CONFIG_OUTPUTS

    wanted = [f"{step}_config" for step in CONFIG_OUTPUTS]
    assert sorted(n for n in preflight.component_spec.outputs if n.endswith("_config")) == sorted(wanted)
    annotated = inspect.signature(preflight.python_func).return_annotation._fields
    assert [name for name in annotated if name.endswith("_config")] == wanted


def test_preflight_takes_every_parameter_of_every_pipeline_and_says_what_it_is():
    from components.preflight.component import preflight
    from pipeline.dags import SYSTEMS, pipeline_of
    from pipeline.signatures import kfp_type, parameter_field

    signature = inspect.signature(preflight.python_func).parameters
    said = {name: spec.description for name, spec in preflight.component_spec.inputs.items()}
    known = {"system", "scheduled_time", "decided"}  # two that a pipeline gives itself, and an output
    for system in SYSTEMS:
        for name in inspect.signature(pipeline_of(system).pipeline_func).parameters:
            field = parameter_field(system, name)
            known.add(name)
            assert signature[name].annotation is kfp_type(name, field), name
            assert " ".join(said[name].split()) == field.description, name
    assert set(signature) == known
