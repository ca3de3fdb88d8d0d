"""Steps of a local run that do not wait for each other run at the same time."""

import builtins
import logging
import threading
import time

import pytest
from kfp import dsl, local
from kfp.local import logging_utils

from pipeline.kfp_compat import stopped_by_first_failure
from pipeline.log_filter import StepLines, filtered_log
from pipeline.run_local import _at_once
from pipeline.side_by_side import side_by_side, steps_at_once
from tests.errors import refused
from tests.pipeline.kfp_steps import ended, meets, refused_beside, trained, waits


@dsl.pipeline(name="two-that-meet")
def two_that_meet(folder: str, seconds: float) -> None:
    with dsl.ExitHandler(ended(folder=folder), name="run"):
        first = meets(folder=folder, name="first", other="second", seconds=seconds)
        second = meets(folder=folder, name="second", other="first", seconds=seconds)
        first.set_env_variable("LATENTREC_STEP", "first")
        second.set_env_variable("LATENTREC_STEP", "second")
        trained(folder=folder, content="after both").after(first, second)


@dsl.pipeline(name="one-fails")
def one_fails(folder: str) -> None:
    with dsl.ExitHandler(ended(folder=folder).set_env_variable("LATENTREC_STEP", "run_summary"), name="run"):
        waits(folder=folder).set_env_variable("LATENTREC_STEP", "backbone")
        last = refused_beside(folder=folder).set_env_variable("LATENTREC_STEP", "sft")
        trained(folder=folder, content="never").after(last)


def begin(tmp_path):
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))


def test_two_steps_run_at_once_and_the_third_waits_for_both(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    begin(tmp_path)
    printed, handlers = builtins.print, logging.getLogger().handlers[:]
    lines_before = logging_utils.indented_print
    with (
        filtered_log(tmp_path / "run.log") as lines,
        stopped_by_first_failure(lambda step: lines.announce(step, 1, 4), always="run_summary"),
        side_by_side(2),
    ):
        two_that_meet(folder=str(tmp_path), seconds=60.0)
    assert (tmp_path / "trained").read_text() == "after both"
    assert (tmp_path / "ended").exists()
    assert (builtins.print, logging.getLogger().handlers) == (printed, handlers)
    assert logging_utils.indented_print is lines_before
    said = [line.strip() for line in capsys.readouterr().out.splitlines() if "is here" in line]
    assert sorted(line.removeprefix("first: ").removeprefix("second: ")[:14] for line in said) == [
        "first is here ",
        "second is here",
    ]
    assert all(line[-1].isdigit() for line in said), "each step has been given its share of the cores"


def test_one_at_a_time_is_as_kfp_does_it(tmp_path):
    begin(tmp_path)
    with side_by_side(1), pytest.raises(RuntimeError):
        two_that_meet(folder=str(tmp_path), seconds=0.5)
    assert not (tmp_path / "trained").exists()


def test_a_step_that_fails_ends_the_one_beside_it_within_seconds(tmp_path):
    begin(tmp_path)
    began = time.monotonic()
    with (
        stopped_by_first_failure(lambda step: None, always="run_summary") as failed,
        side_by_side(2),
        pytest.raises(RuntimeError),
    ):
        one_fails(folder=str(tmp_path))
    assert time.monotonic() - began < 60
    assert failed[0] == "sft"
    assert not (tmp_path / "trained").exists()
    assert (tmp_path / "ended").exists()


def test_a_line_below_another_step_s_heading_names_its_step():
    lines, shown = StepLines(), []
    turn = threading.Barrier(2)

    def backbone() -> None:
        lines.announce("backbone", 3, 10)
        lines.shown("INFO - Executing task 'sft-2'")
        turn.wait()
        turn.wait()
        shown.append(lines.shown("    backbone: 20 of 781 steps"))
        shown.append(lines.shown("    warning: the latent is nearly a constant"))
        shown.append(lines.shown("INFO - Task 'sft-2' finished with status SUCCESS"))

    thread = threading.Thread(target=backbone)
    thread.start()
    turn.wait()
    lines.announce("sft", 4, 10)
    lines.shown("INFO - Executing task 'sft'")
    shown.append(lines.shown("    sft: 10 of 781 steps"))
    shown.append(lines.shown("    warning: a word"))
    turn.wait()
    thread.join()
    assert shown == [
        "   sft: 10 of 781 steps",
        "   warning: a word",
        "   backbone: 20 of 781 steps",
        "   backbone: warning: the latent is nearly a constant",
        "   backbone: 0 s",
    ]


@pytest.mark.parametrize(
    ("parameters", "together"),
    [
        ({"sft_backbone": "tiny", "gpu_count": "0"}, True),
        ({}, True),
        ({"sft_backbone": "Qwen/Qwen2.5-1.5B", "gpu_count": "0"}, False),
        ({"settings": {"sft.backbone": "model.gguf"}}, False),
        ({"pretrain_rating_backbone": "tiny", "gpu_count": "1"}, False),
    ],
)
def test_only_small_models_without_a_gpu_share_the_machine(monkeypatch, parameters, together):
    monkeypatch.delenv("LATENTREC_LOCAL_STEPS", raising=False)
    monkeypatch.setattr("pipeline.side_by_side.cores", lambda: 2)
    assert _at_once(parameters) == (2 if together else 1)
    monkeypatch.setenv("LATENTREC_LOCAL_STEPS", "3")
    assert _at_once(parameters) == 3


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_number_of_steps_that_is_none_is_refused(given):
    with refused("config.bad_value", "LATENTREC_LOCAL_STEPS", f"'{given}'"):
        steps_at_once(given, small=True)
