"""Preflight: everything wrong is told before anything costs, and what the run is given rests on the world."""

import json
import socket

import pytest

from latentrec.steps.data_cutoff import cutoff_day
from latentrec.steps.inputs import check_inputs
from latentrec.steps.operational import read_operational
from latentrec.steps.preflight import check_writable, run_preflight
from tests.errors import refused
from tests.fixtures.shop import decision

REVIEW = {"reviewerID": "A", "asin": "B", "overall": 5.0, "unixReviewTime": 1}


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.json"
    path.write_text(json.dumps(REVIEW) + "\n")
    return path


@pytest.fixture
def given(reviews, monkeypatch):
    """Parameters of a run that nothing is wrong with, on a machine where nothing is set."""
    for name in ("MLFLOW_TRACKING_URI", "LATENTREC_STATUS_ROOT", "LATENTREC_CHECKPOINT_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return {"system": "lares", "customer_reviews": str(reviews), "registry_model_name": "lares"}


@pytest.mark.parametrize("switch", ["data_only_new", "sft_warm_start"])
def test_what_reads_the_registry_needs_one(given, switch):
    with refused("registry.not_set", switch, "MLFLOW_TRACKING_URI"):
        run_preflight({**given, switch: True, "seed": 42})


def test_a_run_by_hand_asks_no_registry(given):
    checked = run_preflight({**given, "data_only_new": False, "sft_warm_start": False})
    assert (checked.known_content, checked.start_from) == ("", "")


def test_a_scheduled_run_is_told_what_is_known_and_where_to_begin(given, register, shop):
    from latentrec.data import content_of
    from latentrec.storage import read_manifest

    register(decision())
    checked = run_preflight(
        {**given, "registry_model_name": "latentr3", "data_only_new": True, "sft_warm_start": True}
    )
    assert checked.known_content == content_of(read_manifest(shop.dataset, "dataset"))
    assert checked.start_from == "models:/latentr3/1"
    assert checked.details["start_from"] == "models:/latentr3/1"


def test_a_switch_of_another_model_finds_nothing_and_trains(given, register):
    register(decision())
    checked = run_preflight(
        {**given, "registry_model_name": "other", "data_only_new": True, "sft_warm_start": True}
    )
    assert (checked.known_content, checked.start_from) == ("", "")


def test_mlflow_s_run_leads_to_kfp_s_page(given, tracked, monkeypatch):
    monkeypatch.setenv("LATENTREC_KFP_UI", "https://kfp.example/")
    run_preflight(given)
    (parent,) = tracked.parents()
    page = "https://kfp.example/#/runs/details/run-1"
    assert parent.data.tags["kfp.url"] == page
    assert f"]({page})" in parent.data.tags["mlflow.note.content"]
    assert parent.data.params["system"] == "lares"


def test_everything_that_is_wrong_is_told_at_once(given, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LATENTREC_CHECKPOINT_ROOT", str(blocked / "below"))
    bad = {"customer_reviews": str(tmp_path / "none.json"), "data_cutoff": "Monday", "seed": -1}
    bad |= {"data_k_core": 0, "settings": {"rpt.beta": "much"}}
    with refused("preflight.several") as found:
        run_preflight({**given, **bad})
    lines = str(found.value).split("\n  - ")[1:]
    for name, value in (
        ("customer_reviews", "none.json"),
        ("data_cutoff", "'Monday'"),
        ("data_k_core", "0"),
        (str(blocked), ""),
        ("rpt.beta", "'much'"),
        ("seed", "-1"),
    ):
        assert sum(name in line and value in line for line in lines) == 1, name


def test_each_step_gets_the_configuration_that_was_checked(given):
    values = {"data_k_core": 3, "data_cutoff": "2026-01-05", "seed": 7}
    checked = run_preflight({**given, **values, "settings": {"spt.hidden_size": 32}})
    assert checked.configs["data_prep"] == {
        "reviews": [given["customer_reviews"]],
        "k_core": 3,
        "seed": 7,
        "window_end": "2026-01-05",
    }
    assert checked.configs["spt"] == {"encoder": "lares", "seed": 7, "hidden_size": 32}


def test_settings_that_cannot_change_a_result_travel_beside_the_cache_key(given, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTREC_STATUS_ROOT", str(tmp_path / "status"))
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-1")
    settings = {"cold_start_sft.save_steps": 3, "cold_start_sft.num_train_epochs": 2}
    checked = run_preflight({**given, "system": "recone", "settings": settings})
    assert "save_steps" not in checked.configs["cold_start_sft"]
    assert checked.configs["cold_start_sft"]["num_train_epochs"] == 2
    assert read_operational("cold_start_sft") == {"save_steps": 3}
    assert read_operational("traces") == {}


def test_without_a_status_root_such_settings_stay_parameters(given):
    checked = run_preflight({**given, "system": "recone", "settings": {"cold_start_sft.save_steps": 3}})
    assert checked.configs["cold_start_sft"]["save_steps"] == 3


def test_a_bucket_that_cannot_be_written_is_named(gcs_server):
    assert check_writable("gs://bucket/checkpoints") == "writable"
    with refused("storage.not_found", "gs://no-such-bucket"):
        check_writable("gs://no-such-bucket/checkpoints")


def test_object_storage_that_does_not_answer_is_named(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free.getsockname()[1]}")
    with refused("storage.not_writable", "gs://bucket/checkpoints"):
        check_writable("gs://bucket/checkpoints")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("reviewerID,asin,overall", "'reviewerID,asin,overall'"),
        ('{"asin": "B", "title": "metadata, not reviews"}', "--metadata (META)"),
    ],
)
def test_inputs_that_begin_like_something_else_are_refused(tmp_path, line, named):
    path = tmp_path / "reviews.json"
    path.write_text(line + "\n")
    with refused("reviews.unknown_format", "reviews.json", named):
        check_inputs(str(path))


def test_no_inputs_at_all_say_what_to_give():
    with refused("config.missing_value", "customer_reviews"):
        check_inputs("")


@pytest.mark.parametrize(
    ("value", "day"),
    [("", ""), ("2026-01-05", "2026-01-05"), ("2026-01-05T03:00:00Z", "2026-01-05")],
)
def test_a_cut_off_is_a_day(value, day):
    assert cutoff_day(value) == day


POD = {
    "KFP_POD_NAME": "latentr3-abc-123",
    "MLFLOW_TRACKING_URI": "",
    "LATENTREC_STATUS_ROOT": "",
    "LATENTREC_CHECKPOINT_ROOT": "",
    "LATENTREC_ARTIFACT_ROOT": "",
    "LATENTREC_KFP_API": "",
    "LATENTREC_IMAGE": "eu.example/r/preflight:1",
}


@pytest.fixture
def pod(given, tracked, tmp_path, monkeypatch):
    """A complete installation around a preflight that runs in a pod."""
    roots = {f"LATENTREC_{name}_ROOT": str(tmp_path / name) for name in ("STATUS", "CHECKPOINT", "ARTIFACT")}
    for name, value in {**POD, **roots, "MLFLOW_TRACKING_URI": tracked.uri}.items():
        monkeypatch.setenv(name, value)
    return given


def test_under_kfp_a_complete_installation_passes_and_an_unknown_backend_is_only_said(pod):
    assert run_preflight(pod).details["kfp_backend"] == "unknown"


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_URI",
        "LATENTREC_STATUS_ROOT",
        "LATENTREC_CHECKPOINT_ROOT",
        "LATENTREC_ARTIFACT_ROOT",
    ],
)
def test_under_kfp_what_later_steps_need_is_required(pod, monkeypatch, name):
    monkeypatch.delenv(name)
    with refused("cluster.missing_settings", name):
        run_preflight(pod)


def test_elsewhere_less_is_required(pod, monkeypatch):
    monkeypatch.delenv("KFP_POD_NAME")
    monkeypatch.delenv("LATENTREC_CHECKPOINT_ROOT")
    run_preflight(pod)


def test_under_kfp_images_of_one_machine_are_refused_unless_allowed(pod, monkeypatch):
    monkeypatch.setenv("LATENTREC_IMAGE", "localhost/latentrec/preflight:1")
    with refused("images.not_pullable", "localhost/latentrec/preflight:1"):
        run_preflight(pod)
    monkeypatch.setenv("LATENTREC_ALLOW_LOCAL_IMAGES", "true")
    run_preflight(pod)


def test_under_kfp_a_backend_that_is_too_old_is_refused(pod, monkeypatch):
    from tests.fakes.kfp_server import KfpServer

    server = KfpServer().start()
    server.health = {"tag_name": "2.15.2"}
    monkeypatch.setenv("LATENTREC_KFP_API", server.url)
    try:
        with refused("cluster.backend_too_old", "2.15.2", "2.16"):
            run_preflight(pod)
    finally:
        server.stop()


def test_metadata_beside_the_reviews_is_taken_where_none_is_given(given, reviews):
    alone = {**given, "system": "latentr3", "sft_backbone": "tiny"}
    beside = reviews.parent / "meta.json"
    with refused("config.missing_value", "data_metadata", str(beside)):
        run_preflight(alone)
    beside.write_text(json.dumps({"asin": "B", "title": "Tea"}) + "\n")
    checked = run_preflight(alone)
    assert checked.configs["data_prep"]["metadata"] == [str(beside)]
    assert checked.details["metadata"] == str(beside)
    assert checked.inputs_fingerprint == check_inputs(str(reviews), str(beside))


def test_a_pod_that_fits_no_node_is_refused_before_anything_waits_for_ever(given):
    l4 = {"gpu_type": "nvidia-l4", "train_memory": "64Gi", "gpu_count": "1"}
    with refused("cluster.too_small"):
        run_preflight({**given, **l4})


BAD_SIGNS = "/:@%?#'`\"\\\n\0\ud83c\u202e"
BAD_NAMES = [
    *(f"a{sign}b" for sign in BAD_SIGNS),
    "models:/x",
    "@champion",
    "..",
    ".hidden",
    " ",
    " a",
    "x" * 201,
]


@pytest.mark.parametrize(
    "name",
    [
        *(f"a{n}b" for n in BAD_NAMES[:8]),
        *BAD_NAMES[8:],
        "a\nb",
        "a\0b",
        " ",
        " a",
        "x" * 201,
        "\ud83c",
        "a\u202eb",
    ],
)
def test_a_model_s_name_that_cannot_be_registered_is_refused_before_the_training(given, name):
    with refused("registry.bad_name", "1", "200"):
        run_preflight({**given, "registry_model_name": name})


@pytest.mark.parametrize("name", ["latentr3-gift-cards", "Shop 1_v2.0", "магазин", "x" * 200])
def test_a_name_that_mlflow_takes_passes(given, name):
    run_preflight({**given, "registry_model_name": name})


@pytest.mark.parametrize(
    ("system", "name", "value", "code", "expected"),
    [
        ("latentr3", "seed", "-1", "config.invalid", "'-1', expected at least 0"),
        ("latentr3", "seed", "nan", "config.invalid", "'nan'"),
        ("latentr3", "seed", "4294967296", "config.invalid", "below 4294967296"),
        ("latentr3", "seed", "1" + "0" * 400, "config.invalid", "below 4294967296"),
        ("latentr3", "seed", "1e400", "config.invalid", "'1e400'"),
        ("latentr3", "sft_learning_rate", "nan", "config.invalid", "'nan'"),
        ("latentr3", "sft_learning_rate", "-inf", "config.invalid", "'-inf'"),
        ("latentr3", "eval_promotion_margin", "inf", "config.invalid", "'inf'"),
        ("latentr3", "sft_reasoning_tokens", "100000", "config.invalid", "at most 256"),
        ("latentr3", "eval_beam_width", "100000000", "config.invalid", "1 to 1,000 or 'exact'"),
        ("latentr3", "eval_beam_width", "²", "config.invalid", "1 to 1,000 or 'exact'"),
        ("latentr3", "gpu_count", "nan", "config.bad_value", "0 to 8"),
        ("latentr3", "gpu_count", "inf", "config.bad_value", "0 to 8"),
        ("latentr3", "gpu_count", "1e400", "config.bad_value", "0 to 8"),
        ("lares", "gpu_count", "9", "config.bad_value", "0 to 8"),
        ("latentr3", "sft_backbone", "~/no-such-folder", "backbone.unknown_name", "'~/no-such-folder'"),
        ("latentr3", "sft_backbone", "x" * 5000, "config.bad_value", "1,000"),
        ("latentr3", "sft_backbone", "a\0b", "config.bad_value", r"'a\x00b'"),
        ("recone", "traces_endpoint", "file:///etc/passwd", "config.invalid", "'file:///etc/passwd'"),
    ],
)
def test_a_value_that_fails_later_is_refused_now_in_one_line(
    given, tmp_path, system, name, value, code, expected
):
    metadata = tmp_path / "meta.json"
    metadata.write_text(json.dumps({"asin": "B", "title": "Oak Guitar"}) + "\n")
    hostile = {**given, "system": system, "data_metadata": str(metadata), name: value}
    with refused(code, name, expected) as found:
        run_preflight(hostile)
    assert "\n" not in str(found.value), "one thing is wrong, told once"


def test_a_home_in_a_backbone_s_name_is_found(given, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "config.json").write_text('{"hidden_size": 64, "vocab_size": 100}')
    metadata = tmp_path / "meta.json"
    metadata.write_text(json.dumps({"asin": "B", "title": "Oak Guitar"}) + "\n")
    hostile = {**given, "system": "latentr3", "data_metadata": str(metadata), "sft_backbone": "~/backbone"}
    assert "M parameters" in run_preflight(hostile).details["backbone"]


def test_a_run_without_a_name_registers_under_system_and_dataset(given, reviews):
    toys = reviews.rename(reviews.with_name("Toys_and_Games_5.json"))
    checked = run_preflight({**given, "customer_reviews": str(toys), "registry_model_name": ""})
    assert checked.details["model_name"] == "lares-toys-and-games"
    assert run_preflight({**given, "customer_reviews": str(toys)}).details["model_name"] == "lares"
