"""What the images install is what code imports, or what something imported needs."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_layers import ROOT, imported_modules, python_files

EXTRAS = {
    "data-prep": ("component", "data", "gcs", "report", "tracking-client"),
    "train": ("component", "data", "gcs", "train", "report", "tracking-client"),
    "register": ("component", "data", "gcs", "train", "report", "tracking"),
}
"""Extras of each image, as docker/requirements/lock.sh locks them."""
IMPORTED_BY_TRANSFORMERS = {"accelerate", "gguf"}
"""For Trainer, and for reading .gguf files: transformers imports them, and requires neither."""
UNEXPLAINED = {"tzdata"}
"""No installed package requires it on Linux; to leave the locks when they are next resolved."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def asked_for(image):
    lines = [*PROJECT["dependencies"]]
    for extra in EXTRAS[image]:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def locked(image):
    text = (ROOT / f"docker/requirements/{image}.txt").read_text()
    return {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", text, re.M)}


def needed(names):
    """``names`` and everything that their installed versions require, extras that they ask for included."""
    found, waiting = set(), [(name, "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(requirement.name)
                waiting += [(wanted, asked) for asked in ("", *requirement.extras)]
    return {name for name, _ in found}


def test_the_extras_are_those_that_the_locks_are_made_of():
    script = (ROOT / "docker/requirements/lock.sh").read_text()
    for image, extras in EXTRAS.items():
        assert f"lock {image} pyproject.toml -- {' '.join(extras)}\n" in script


@pytest.mark.parametrize("image", EXTRAS)
def test_code_imports_every_package_that_an_image_asks_for(image):
    modules = packages_distributions()
    imported = set()
    for path in [path for folder in ("latentrec", "components", "pipeline") for path in python_files(folder)]:
        for module in imported_modules(path):
            imported |= {canonicalize_name(name) for name in modules.get(module.partition(".")[0], ())}
    imported |= {"mlflow-skinny"} if "mlflow" in imported else set()
    assert asked_for(image) - imported - IMPORTED_BY_TRANSFORMERS == set()


@pytest.mark.parametrize("image", EXTRAS)
def test_an_image_holds_nothing_that_nothing_in_it_needs(image):
    assert locked(image) - needed(asked_for(image)) - UNEXPLAINED == set()


RUN_WITH = {
    "kfp": ("2.17.0", "pipeline/kfp_compat.py"),
    "mlflow": ("3.17.2", "latentrec/tracking/mlflow_compat.py"),
    "mlflow-skinny": ("3.17.2", "latentrec/tracking/mlflow_compat.py"),
    "transformers": ("5.23.0", "latentrec/training/common/trainer_compat.py"),
    "trl": ("1.16.0", "latentrec/training/common/trainer_compat.py"),
}
"""Libraries of which something is replaced or overridden that they do not promise to keep: the version that
the suite was run with, and where it is done. Another version in the locks is a reason to run it again."""
LOCKS = [ROOT / f"docker/requirements/{name}.txt" for name in ("dev", *EXTRAS)]
"""Of the suite and of the images of the steps."""


def requirements_of_the_project():
    lines = [*PROJECT["dependencies"]]
    for extra in PROJECT["optional-dependencies"].values():
        lines += extra
    return [Requirement(line) for line in lines]


def test_every_requirement_has_an_upper_bound_that_the_locked_versions_are_below():
    locks = [dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", path.read_text(), re.M)) for path in LOCKS]
    for wanted in requirements_of_the_project():
        assert {"<", "=="} & {one.operator for one in wanted.specifier}, f"{wanted} has no upper bound"
        for lock in locks:
            found = {canonicalize_name(name): version for name, version in lock.items()}
            version = found.get(canonicalize_name(wanted.name))
            assert version is None or wanted.specifier.contains(version), f"{wanted}: {version} is locked"


@pytest.mark.parametrize("library", RUN_WITH)
def test_each_compat_module_names_the_version_that_was_run(library):
    version, place = RUN_WITH[library]
    assert f"{library.removesuffix('-skinny')} {version}" in (ROOT / place).read_text()


@pytest.mark.parametrize("library", RUN_WITH)
def test_libraries_that_are_overridden_are_of_the_version_that_was_run(library):
    version, place = RUN_WITH[library]
    assert (ROOT / place).is_file()
    found = {
        match[1] for path in LOCKS if (match := re.search(rf"^{library}==([\w.]+)", path.read_text(), re.M))
    }
    assert found == {version}, f"run the suite with {library} {found}, then name it in RUN_WITH"
