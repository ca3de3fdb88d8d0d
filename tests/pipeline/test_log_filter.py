"""What `make run` shows: the steps and what they say, and nothing of KFP's own detail."""

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
    assert [shown for line in PRINTED.splitlines() if (shown := lines.shown(line)) is not None] == [
        "── sft",
        "   sft: 61 of 195 (31%) steps, 5.0 steps/s",
        "   error: reviews.json, line 3: 'overall' is 'five', expected a number from 1 to 5",
        "── sft: FAILURE",
    ]


def test_the_log_holds_everything(tmp_path, capsys):
    with filtered_log(tmp_path / "logs" / "run.log"):
        print("    ", end="")
        print(PRINTED, end="")
    assert (tmp_path / "logs" / "run.log").read_text(encoding="utf-8") == "    " + PRINTED
    assert capsys.readouterr().out.startswith("── sft\n")
