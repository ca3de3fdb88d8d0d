"""What a user waits for: `--help`, preflight and register load no library that they do not use."""

import json
import subprocess
import sys

import pytest

from latentrec.cli import COMMANDS
from latentrec.steps.parameters import STEPS

HEAVY = ("torch", "transformers", "trl", "mlflow", "pandas", "matplotlib", "scipy", "google.cloud.storage")


def loaded(code: str) -> list[str]:
    """Heavy libraries that a fresh process has imported after ``code``."""
    report = f"\nimport json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_help_of_every_command_loads_no_heavy_library():
    code = (
        "import contextlib, io\nfrom latentrec.cli import COMMANDS, main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    for name in COMMANDS:\n"
        "        with contextlib.suppress(SystemExit):\n            main([name, '--help'])"
    )
    assert COMMANDS
    assert loaded(code) == []


@pytest.mark.parametrize("module", ["latentrec.steps.preflight", "latentrec.steps.runtime"])
def test_what_every_component_imports_loads_no_heavy_library(module):
    assert loaded(f"import {module}") == []


def test_no_configuration_needs_torch():
    code = "from latentrec.steps.parameters import STEPS, config_class\n[config_class(g) for g in STEPS]"
    assert STEPS
    assert loaded(code) == []


def test_every_lazily_offered_name_is_there():
    import latentrec.data
    import latentrec.models.latentr3
    import latentrec.models.sequential

    for package in (latentrec.data, latentrec.models.latentr3, latentrec.models.sequential):
        for name in package.__all__:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'missing'"):
            package.missing  # noqa: B018


def test_names_of_blocks_are_those_of_the_registry():
    from latentrec.models.sequential import BLOCK_NAMES, BLOCKS

    assert tuple(BLOCKS) == BLOCK_NAMES
