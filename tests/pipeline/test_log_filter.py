"""What `make run` shows: the steps and what they say, and nothing of KFP's own detail."""

import json
import re

from pipeline.local_runner import hide_secrets
from pipeline.log_filter import StepLines, filtered_log

PRINTED = """\
09:52:23.311 - INFO - Running pipeline: \x1b[95m'latentr3'\x1b[0m
--------------------------------------------------------------------------------
09:52:23.318 - INFO - Executing task \x1b[96m'sft'\x1b[0m
09:52:23.318 - INFO - Streamed logs:

    [KFP Executor 2026-11-21 09:52:23,375 INFO]: Got executor_input:
    {
        "inputs": {
            "parameterValues": {
                "seed": 42
    sft: 61 of 195 (31%) steps, 5.0 steps/s
    error: reviews.json, line 3: 'overall' is 'five', expected a number from 1 to 5
09:52:40.318 - INFO - Task \x1b[96m'sft'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
    model: Model( name='model',
                  uri='somewhere' )
"""


def test_only_steps_and_their_own_lines_are_shown():
    lines = StepLines()
    shown = [text for line in PRINTED.splitlines() if (text := lines.shown(line)) is not None]
    assert shown == [
        "── sft",
        "   sft: 61 of 195 (31%) steps, 5.0 steps/s",
        "   error: reviews.json, line 3: 'overall' is 'five', expected a number from 1 to 5",
        "   FAILED after 0 s",
    ]


def test_a_step_has_the_pipelines_name_for_it_and_its_place():
    lines = StepLines()
    lines.announce("backbone", 3, 10)
    assert (
        lines.shown("09:52:23.318 - INFO - Executing task \x1b[96m'sft-2'\x1b[0m") == "── 3 of 10 · backbone"
    )


def test_hashes_are_cut_to_what_tells_them_apart():
    lines = StepLines()
    lines.shown("09:52:23.318 - INFO - Executing task 'preflight'")
    shown = lines.shown("    inputs: ebb17acab978e605e88003da1fa56bd27af1e4ef07ccd93641cb2c5e91ad7766")
    assert shown == "   inputs: ebb17acab978…"


def test_the_log_holds_everything_without_colors(tmp_path, capsys):
    with filtered_log(tmp_path / "logs" / "run.log"):
        print("    ", end="")
        print(PRINTED, end="")
    text = (tmp_path / "logs" / "run.log").read_text(encoding="utf-8")
    assert text == "    " + re.sub(r"\x1b\[\d+m", "", PRINTED)
    assert capsys.readouterr().out.startswith("── sft\n")


def test_a_log_holds_no_password_of_an_address(tmp_path):
    with filtered_log(tmp_path / "log"):
        print('  "customer_reviews": "https://ann:hunter2@shop.example/r.json?sig=s3cret",')
    text = (tmp_path / "log").read_text()
    assert '"https://shop.example/r.json?…",' in text
    assert "hunter2" not in text
    assert "s3cret" not in text


def test_what_kfp_keeps_of_a_run_holds_none(tmp_path):
    kept = tmp_path / "run" / "preflight" / "executor_output.json"
    kept.parent.mkdir(parents=True)
    given = {
        "parameterValues": {"config": json.dumps({"reviews": ["https://a:hunter2@h/r?sig=s3cret"], "k": 1})}
    }
    kept.write_text(json.dumps(given))
    hide_secrets(tmp_path, since=0.0)
    found = json.loads(kept.read_text())["parameterValues"]["config"]
    assert json.loads(found) == {"reviews": ["https://h/r?…"], "k": 1}
