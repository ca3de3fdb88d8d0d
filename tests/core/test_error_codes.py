"""Every error of a user carries a code of the catalog, and every code of the catalog is raised somewhere."""

import ast
import json
import logging
import re
from pathlib import Path

import pytest

from latentrec.core import UserError
from latentrec.core.error_codes import ERROR_CODES
from latentrec.core.log_setup import JsonFormatter
from latentrec.steps.status import exit_code_on_error

ROOT = Path(__file__).resolve().parents[2]
CHOSEN_WHERE_RAISED = {"latentrec/steps/preflight.py": {"code"}, "latentrec/storage/names.py": {"code"}}
"""Places that hand on the code of another error in a variable (elsewhere: ``code=error.code``)."""


def raised_codes():
    """(place, expression of the code or ``None``) of every UserError and StorageError that is made."""
    for folder in ("latentrec", "components", "pipeline"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in ("UserError", "StorageError")
                ):
                    code = next((word.value for word in node.keywords if word.arg == "code"), None)
                    yield f"{place}:{node.lineno}", code


def test_every_error_has_a_code_of_the_catalog_and_every_code_is_used():
    used = {"cluster.unreachable", "preflight.several"}
    for place, code in raised_codes():
        if isinstance(code, ast.Constant):
            assert code.value in ERROR_CODES, f"{place}: code {code.value!r} is not in the catalog"
            used.add(code.value)
        else:
            handed_on = CHOSEN_WHERE_RAISED.get(place.rpartition(":")[0], set())
            known = getattr(code, "attr", None) == "code" or getattr(code, "id", None) in handed_on
            assert known, f"{place}: error without a code"
    assert used == set(ERROR_CODES)


def test_codes_are_area_and_reason_and_have_a_meaning():
    for code, meaning in ERROR_CODES.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", code), code
        assert re.fullmatch(r".{10,}[^.]", meaning), code


def test_code_stands_in_the_json_line_of_a_command(caplog):
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(SystemExit) as left,
        exit_code_on_error(),
    ):
        raise UserError("run.yaml: cannot be read", code="config.unreadable_file")
    assert left.value.code == 2
    line = json.loads(JsonFormatter().format(caplog.records[-1]))
    assert line["error_code"] == "config.unreadable_file"
    assert line["message"] == "run.yaml: cannot be read"


def test_line_without_an_error_has_no_code():
    record = logging.LogRecord("x", logging.INFO, "", 0, "fine", (), None)
    assert "error_code" not in json.loads(JsonFormatter().format(record))
