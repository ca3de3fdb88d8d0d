"""Logs: plain for people, timed in a pod, JSON for a log service; the library itself prints nothing."""

import ast
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAYS = """
import logging, warnings
from latentrec.core.log_setup import configure_logging
logging.basicConfig(level=logging.INFO, format="[KFP Executor %(levelname)s]: %(message)s")
configure_logging()
log = logging.getLogger("latentrec.steps.preflight")
log.info("inputs: %s", "ok")
log.warning("slow: gs://bucket/x?token=secret")
log.error("no such file", extra={"label": "failed"})
logging.getLogger("urllib3").info("a library's detail")
warnings.warn("deprecated")
try:
    1 / 0
except ZeroDivisionError as error:
    log.critical("ZeroDivisionError: %s", error, exc_info=error)
"""


def said(monkeypatch, **environment: str) -> list[str]:
    for name in ("LATENTREC_LOG_FORMAT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_people_read_the_message_once_with_its_level_where_that_matters(monkeypatch):
    lines = said(monkeypatch)
    assert lines[:3] == ["inputs: ok", "warning: slow: gs://bucket/x?…", "failed: no such file"]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert lines.count("inputs: ok") == 1
    assert not any("a library's detail" in line for line in lines)


def test_a_pod_s_lines_begin_with_time_and_level(monkeypatch):
    lines = said(monkeypatch, KUBERNETES_SERVICE_HOST="10.0.0.1")
    stamp = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
    assert re.match(stamp + "INFO    inputs: ok$", lines[0])
    assert lines[1].split(" ", 1)[1] == "WARNING warning: slow: gs://bucket/x?…"


def test_json_lines_hold_what_log_services_index(monkeypatch):
    lines = said(monkeypatch, LATENTREC_LOG_FORMAT="json", LATENTREC_STEP="sft", LATENTREC_RUN_ID="run-1")
    records = [json.loads(line) for line in lines]
    assert [record["severity"] for record in records] == ["INFO", "WARNING", "ERROR", "WARNING", "CRITICAL"]
    first = records[0]
    assert (first["message"], first["logger"]) == ("inputs: ok", "latentrec.steps.preflight")
    assert (first["step"], first["run_id"]) == ("sft", "run-1")
    assert first["time"].endswith("Z")
    assert "secret" not in lines[1]
    assert "deprecated" in records[3]["message"]
    assert "division by zero" in records[4]["exception"]


def test_an_unknown_format_is_bad_input(monkeypatch):
    monkeypatch.setenv("LATENTREC_LOG_FORMAT", "xml")
    command = [sys.executable, "-m", "latentrec", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "error: LATENTREC_LOG_FORMAT is 'xml'; allowed: text, json\n"


def test_handlers_of_other_kinds_stay(caplog):
    from latentrec.core.log_setup import configure_logging

    configure_logging()
    logging.getLogger("latentrec.core").warning("heard by pytest too")
    assert "heard by pytest too" in caplog.text


@pytest.mark.parametrize("folder", sorted(p.name for p in (ROOT / "latentrec").iterdir() if p.is_dir()))
def test_library_code_prints_nothing(folder):
    for path in sorted((ROOT / "latentrec" / folder).rglob("*.py")):
        if folder == "cli":
            continue  # what a command was asked for goes to standard output
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path.relative_to(ROOT)}:{node.lineno} prints"
