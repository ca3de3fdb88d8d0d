"""Kubeflow's form: every box that can be filled wrongly is refused by preflight, by its name there."""

import inspect
import json
import logging

import pytest

from latentrec.core import UserError
from latentrec.steps.preflight import run_preflight
from pipeline.dags import SYSTEMS, pipeline_of
from pipeline.signatures import kfp_type, parameter_field

WRONG = {
    "customer_reviews": "/no/such.json",
    "data_metadata": "/no/meta.json",
    "data_window_end": "soon",
    "data_window_start": "2031-99-01",
    "eval_beam_width": "0",
    "gpu_node_selector": {"pool": 5},
    "gpu_tolerations": [{"kye": "a"}],
    "gpu_type": "nvidia-nothing",
    "pretrain_rating_backbone": "nowhere",
    "registry_model_name": "a/b:c",
    "settings": {"sft.nonsense": 1},
    "sft_backbone": "/nowhere",
    "traces_endpoint": "ftp://x",
}
"""By parameter; of numbers -1 is wrong, of other texts any word."""

FREE = {"gpu_machine_type"}
"""Any word may be right: a machine that our table lacks. Where it has it, the sizes of pods are checked."""


@pytest.fixture
def given(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "LATENTREC_STATUS_ROOT", "LATENTREC_CHECKPOINT_ROOT"):
        monkeypatch.delenv(name, raising=False)
    logging.getLogger("latentrec").setLevel(logging.CRITICAL)
    review = {"reviewerID": "A", "asin": "B", "overall": 5.0, "unixReviewTime": 1}
    (tmp_path / "reviews.json").write_text(json.dumps(review) + "\n")
    (tmp_path / "meta.json").write_text('{"asin": "B", "title": "Tea"}\n')

    def of(system):
        signature = inspect.signature(pipeline_of(system).pipeline_func).parameters
        values = {
            name: one.default for name, one in signature.items() if one.default is not inspect.Parameter.empty
        }
        values |= {"customer_reviews": str(tmp_path / "reviews.json"), "gpu_count": "1", "system": system}
        return values | {name: "tiny" for name in values if name.endswith("_backbone")}

    yield of
    logging.getLogger("latentrec").setLevel(logging.NOTSET)


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_left_alone_passes_with_one_box_filled(given, system):
    run_preflight(given(system))


def test_a_wrong_setting_hides_no_other_box(given):
    wrong = {"settings": {"sft.nonsense": 1}, "data_k_core": -1, "sft_batch_size": 0}
    with pytest.raises(UserError) as found:
        run_preflight({**given("latentr3"), **wrong})
    lines = str(found.value).splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["settings:", "data_k_core", "sft_batch_size"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_box_that_is_wrong_is_named(given, system):
    faults = []
    names = inspect.signature(pipeline_of(system).pipeline_func).parameters
    for name in sorted(set(names) - FREE):
        number = kfp_type(name, parameter_field(system, name)) in (int, float)
        wrong = WRONG.get(name, -1 if number else "nothing-known")
        try:
            run_preflight({**given(system), name: wrong})
            faults.append(f"{name}: {wrong!r} was accepted")
        except UserError as error:
            if name not in str(error):
                faults.append(f"{name} is not named: {error}")
    assert faults == []
