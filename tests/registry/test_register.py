"""Registration: lineage, card, aliases through the gate, a lock that admits one, a history one can read."""

from __future__ import annotations

import dataclasses
import inspect
import json

import mlflow
import pandas as pd
import pytest

from latentrec.decoding import DecodingOptions
from latentrec.evaluation import EvaluateConfig, evaluate
from latentrec.models import read_model
from latentrec.registry.download import find_champion, previous_dataset_manifest, pull_model
from latentrec.registry.model_registry import Registry
from latentrec.registry.promotion import promote, promotion_history, rollback
from latentrec.registry.registration import register_model
from tests.errors import refused
from tests.fixtures.shop import decision, write_evaluation
from tests.fixtures.tiny_latentr3 import make_latentr3


def aliases(name="latentr3"):
    return Registry().aliases(name)


def test_judged_model_is_registered_served_and_pulled(tracked, shop, tmp_path):
    models = {"popularity": shop.popularity, "sasrec": shop.sasrec}
    config = EvaluateConfig(n_resamples=100, cost_samples=2)
    evaluate(config, dataset=shop.dataset, models=models, output=tmp_path / "evaluation")
    outcome = register_model(
        model_dir=shop.sasrec,
        evaluation_dir=tmp_path / "evaluation",
        name="latentr3",
        dataset_dir=shop.dataset,
    )
    assert outcome.promoted, outcome.event.reason
    served = mlflow.pyfunc.load_model("models:/latentr3@champion")
    answer = served.predict(pd.DataFrame({"history": [["B0003", "B0004"], ["nope", "B0004"], []]}), {"k": 3})
    columns = ["item_keys", "titles", "scores", "unknown_items", "fallback", "model", "version"]
    assert list(answer.columns) == columns
    assert set(answer["model"]) == {"latentr3"}
    assert set(answer["version"]) == {"1"}
    assert [len(keys) for keys in answer["item_keys"]] == [3, 3, 3]
    assert answer["titles"][0] == [f"Title {key}" for key in answer["item_keys"][0]]
    assert answer["scores"][0] == sorted(answer["scores"][0], reverse=True)
    assert "B0004" not in answer["item_keys"][0]
    assert answer["unknown_items"].tolist() == [0, 1, 0]
    assert answer["fallback"].tolist() == [False, False, True]
    pulled = pull_model("models:/latentr3@champion", tmp_path / "pulled")
    assert pulled.tags["model.fingerprint"] == outcome.model.tags["model.fingerprint"]
    assert (tmp_path / "pulled" / "model.json").read_bytes() == (shop.sasrec / "model.json").read_bytes()
    description = tracked.client.get_model_version("latentr3", "1").description
    for heading in ("Intended use", "Results", "Slices", "Cost", "Data", "Limits", "Lineage"):
        assert f"## {heading}" in description
    assert len(description) <= 5000


def test_first_version_above_the_floor_becomes_champion(register):
    outcome = register(decision(promote=True))
    assert outcome.promoted
    assert aliases() == {"challenger": "1", "champion": "1"}
    logged = mlflow.MlflowClient().get_logged_model(outcome.model.model_id)
    assert logged.model_uri == f"models:/{outcome.model.model_id}"


def test_refused_first_version_is_challenger_only_and_the_error_says_so(register, capsys):
    register(decision(promote=False, reason="not above the baseline popularity"))
    assert aliases() == {"challenger": "1"}
    with refused("registry.no_champion", "models:/latentr3@challenger"):
        Registry().resolve("models:/latentr3@champion")
    assert find_champion("latentr3") is None


def test_champion_comes_with_how_it_is_served(tracked, shop, tmp_path):
    gate = decision()
    settings = {"decoding": "d3", "beam_width": "7", "alpha": 0.25, "exclude_history": False}
    settings |= {"dtype": "bfloat16"}
    model = make_latentr3(tmp_path / "model", shop.dataset)
    evaluation = write_evaluation(tmp_path / "evaluation", model, gate, **settings)
    register_model(
        model_dir=model,
        evaluation_dir=evaluation,
        name="latentr3",
        dataset_dir=shop.dataset,
        assistant_dir=shop.popularity,
    )
    champion = find_champion("latentr3")
    assert (champion.label, champion.version) == ("latentr3 v1", "1")
    served = champion.served
    assert served == DecodingOptions(
        decoding="d3", beam_width=7, alpha=0.25, exclude_history=False, dtype="bfloat16"
    )
    assert read_model(champion.assistant_dir)[0].system == "popularity"


def test_promotion_keeps_the_old_champion_as_previous(register):
    register(decision())
    register(decision(expected="1"))
    assert aliases() == {"challenger": "2", "champion": "2", "previous": "1"}


def test_a_champion_promoted_in_between_refuses_the_late_one(register):
    register(decision())
    register(decision(expected="1"))
    late = register(decision(expected="1"))
    assert not late.promoted
    assert late.event.reason.startswith(
        "refused: the evaluation compared with version 1, and meanwhile the champion is version 2"
    )
    assert aliases()["champion"] == "2"


def test_retry_of_the_same_run_registers_no_second_version(register):
    first = register(decision(), run_id="run-x")
    again = register(decision(promote=False, reason="same"), run_id="run-x")
    assert (first.model.version, again.model.version) == ("1", "1")


def test_version_carries_its_lineage(register, shop):
    tags = register(decision(), run_id="run-x").model.tags
    assert tags["git.sha"] == "abc123"
    assert tags["image.digest"] == "sha256:feed"
    assert tags["pipeline.run_id"] == "run-x"
    model_json = json.loads((shop.sasrec / "model.json").read_text())
    assert tags["dataset.fingerprint"] == model_json["dataset_fingerprint"]
    assert tags["model.system"] == "sasrec"
    assert int(tags["model.train_end"]) == model_json["train_end"]


def test_an_evaluation_of_another_model_is_refused(tracked, shop, tmp_path):
    evaluation = write_evaluation(tmp_path / "evaluation", shop.popularity, decision())
    with refused("registry.other_evaluation"):
        register_model(model_dir=shop.sasrec, evaluation_dir=evaluation, name="latentr3")
    assert tracked.client.search_registered_models() == []


def test_without_a_registry_the_error_names_the_variable(shop, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    evaluation = write_evaluation(tmp_path / "evaluation", shop.sasrec, decision())
    with refused("registry.not_set", "MLFLOW_TRACKING_URI"):
        register_model(model_dir=shop.sasrec, evaluation_dir=evaluation, name="latentr3")


def test_history_of_five_runs_one_refused_one_rolled_back_reads_from_the_registry_alone(register):
    register(decision())
    register(decision(expected="1"))
    register(decision(promote=False, expected="2", reason="worse by 0.02"))
    register(decision(expected="2"))
    rollback("latentr3", "complaints about version 4")
    register(decision(expected="2"))
    events = promotion_history("latentr3")
    assert [(e.number, e.action, e.version, e.replaced) for e in events] == [
        (1, "promoted", "1", None),
        (2, "promoted", "2", "1"),
        (3, "refused", "3", "2"),
        (4, "promoted", "4", "2"),
        (5, "rolled_back", "2", "4"),
        (6, "promoted", "5", "2"),
    ]
    assert events[2].reason == "refused: worse by 0.02"
    assert events[4].reason == "complaints about version 4"
    assert events[0].by == "latentr3 run run-0"
    assert aliases() == {"challenger": "5", "champion": "5", "previous": "2"}
    verdicts = {entry.version: entry.tags["gate.verdict"] for entry in Registry().versions("latentr3")}
    assert verdicts == {"1": "promoted", "2": "promoted", "3": "refused", "4": "promoted", "5": "promoted"}


def test_promotion_by_hand_needs_a_reason_and_a_version_that_exists(register):
    register(decision())
    register(decision(promote=False, expected="1", reason="worse"))
    with refused("config.missing_value"):
        promote("latentr3", "2", " ")
    with refused("registry.unknown_version", "7", "1", "2"):
        promote("latentr3", "7", "because")
    event = promote("latentr3", "2", "the business wants it")
    assert (event.action, aliases()["champion"], aliases()["previous"]) == ("moved", "2", "1")


def test_rollback_without_an_earlier_champion_is_refused(register):
    register(decision())
    with refused("registry.no_earlier_champion"):
        rollback("latentr3", "because")
    assert aliases() == {"challenger": "1", "champion": "1"}


def test_rollbacks_go_back_in_history_and_never_to_the_withdrawn_version(register):
    register(decision())
    register(decision(expected="1"))
    register(decision(expected="2"))
    first = rollback("latentr3", "version 3 hides new items")
    assert (first.version, first.replaced) == ("2", "3")
    assert aliases() == {"challenger": "3", "champion": "2", "previous": "1"}
    second = rollback("latentr3", "version 2 does too")
    assert (second.version, second.replaced) == ("1", "2")
    assert aliases() == {"challenger": "3", "champion": "1"}
    with refused("registry.no_earlier_champion"):
        rollback("latentr3", "once more")
    tags = {entry.version: entry.tags for entry in Registry().versions("latentr3")}
    assert {version: entry["gate.verdict"] for version, entry in tags.items()} == dict.fromkeys(
        "123", "promoted"
    )
    register(decision(expected="1"))
    assert rollback("latentr3", "nor is this one good").version == "1"


def test_a_version_that_is_deleted_is_passed_over_by_a_rollback(register, tracked):
    for expected in (None, "1", "2"):
        register(decision(expected=expected))
    tracked.client.delete_registered_model_alias("latentr3", "previous")
    tracked.client.delete_model_version("latentr3", "2")
    assert rollback("latentr3", "bad").version == "1"


def test_rollbacks_and_promotions_at_once_leave_one_history(register, monkeypatch):
    """What is rolled back to is read under the lock: no rollback lands on a stale version."""
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr("latentrec.registry.promotion_lock._POLL_S", 0.01)
    for number in range(6):
        register(decision(expected=str(number) if number else None))
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda number: rollback("latentr3", f"reason {number}"), range(5)))
    assert sorted(int(event.version) for event in found) == [1, 2, 3, 4, 5]
    moves = [(event.replaced, event.version) for event in promotion_history("latentr3")[6:]]
    assert moves == [("6", "5"), ("5", "4"), ("4", "3"), ("3", "2"), ("2", "1")]


@pytest.mark.parametrize("killed_in", ["_create_version", "apply_gate", "_set_verdict", "_set_alias"])
def test_a_kill_inside_register_is_completed_by_the_retry(register, monkeypatch, killed_in):
    """Whatever was done before the kill is found again: one version, one event, one champion."""
    from latentrec.registry import promotion as promoting
    from latentrec.registry import registration as registering

    register(decision())
    module = registering if hasattr(registering, killed_in) else promoting
    original = getattr(module, killed_in)

    def killed(*arguments, **options):
        if killed_in != "_set_alias" or arguments[3] == "champion":
            original(*arguments, **options)
            raise SystemExit(143)
        original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module, killed_in, killed)
        with pytest.raises(SystemExit):
            register(decision(expected="1"), run_id="killed")
    outcome = register(decision(expected="1"), run_id="killed")
    assert (outcome.model.version, outcome.promoted) == ("2", True)
    assert [(e.action, e.version, e.replaced) for e in promotion_history("latentr3")] == [
        ("promoted", "1", None),
        ("promoted", "2", "1"),
    ]
    assert aliases() == {"challenger": "2", "champion": "2", "previous": "1"}
    assert outcome.model.tags["gate.verdict"] == "promoted"


def test_the_same_evaluation_is_registered_once_by_hand_too(tracked, shop, tmp_path, monkeypatch):
    monkeypatch.delenv("LATENTREC_RUN_ID")
    evaluation = write_evaluation(tmp_path / "evaluation", shop.sasrec, decision())
    for _ in range(2):
        outcome = register_model(model_dir=shop.sasrec, evaluation_dir=evaluation, name="latentr3")
    assert [entry.version for entry in Registry().versions("latentr3")] == ["1"]
    assert len(promotion_history("latentr3")) == 1
    assert outcome.promoted


def test_waiting_for_a_lock_in_vain_adds_no_version(register, tracked, monkeypatch):
    from latentrec.registry.promotion_lock import lock_root, promotion_lock

    monkeypatch.setattr("latentrec.registry.promotion_lock._POLL_S", 0.01)
    waiting = inspect.unwrap(promotion_lock).__kwdefaults__
    monkeypatch.setitem(waiting, "wait_seconds", 0.05)
    with (
        promotion_lock(lock_root(tracked.uri), "latentr3"),
        refused("registry.locked"),
    ):
        register(decision())
    assert Registry().versions("latentr3") == []


def test_champion_is_found_for_the_next_evaluation(register, shop):
    register(decision())
    champion = find_champion("models:/latentr3@champion")
    assert (champion.version, champion.label) == ("1", "latentr3 v1")
    assert (champion.directory / "model.json").is_file()


def test_previous_dataset_is_found_through_the_registry_promoted_or_not(register, shop):
    assert previous_dataset_manifest("latentr3") is None
    register(decision(promote=False, reason="worse"))
    found = previous_dataset_manifest("latentr3")
    assert found.fingerprint == json.loads((shop.dataset / "manifest.json").read_text())["fingerprint"]


def test_next_run_knows_the_content_of_the_data_that_was_trained_on(register, shop, tmp_path):
    """Another end of the window changes the fingerprint and not the content: nothing new."""
    from latentrec.data import content_of
    from latentrec.steps.preflight import known_content
    from latentrec.storage import read_manifest

    assert known_content("latentr3") == ""
    register(decision(promote=False, reason="worse"))
    manifest = read_manifest(shop.dataset, "dataset")
    assert known_content("latentr3") == content_of(manifest)
    later = dataclasses.replace(manifest, fingerprint="other", config={"window_end": "2035-01-01"})
    assert known_content("latentr3") == content_of(later)
    files = {name: {**file, "sha256": "0" * 64} for name, file in manifest.files.items()}
    assert known_content("latentr3") != content_of(dataclasses.replace(manifest, files=files))


def test_warm_start_begins_at_the_version_that_is_champion_now(register):
    from latentrec.steps.preflight import champion_version
    from latentrec.steps.runtime import registered_model

    assert champion_version("latentr3") == ""
    with registered_model(champion_version("latentr3")) as directory:
        assert directory is None
    register(decision())
    register(decision(promote=False, reason="worse"))
    assert champion_version("latentr3") == "models:/latentr3/1"
    with registered_model("models:/latentr3/1") as directory:
        assert (directory / "model.json").is_file()
        assert directory.name == "latentr3-v1"
    assert not directory.exists()


def test_judged_with_d3_asks_for_the_assistant(tracked, shop, tmp_path):
    model = make_latentr3(tmp_path / "model", shop.dataset)
    evaluation = write_evaluation(tmp_path / "evaluation", model, decision(), alpha=0.5)
    with refused("decoding.needs_assistant", "--assistant"):
        register_model(model_dir=model, evaluation_dir=evaluation, name="latentr3")


def test_assistant_is_served_only_where_it_was_judged(tracked, shop, tmp_path):
    model = make_latentr3(tmp_path / "model", shop.dataset)
    evaluation = write_evaluation(tmp_path / "evaluation", model, decision(), alpha=1.0)
    directories = {"model_dir": model, "evaluation_dir": evaluation, "assistant_dir": shop.popularity}
    found = register_model(name="latentr3", **directories)
    assert "assistant" not in Registry().artifacts(found.model)


def test_pickles_are_not_registered(register, shop, tmp_path):
    import shutil

    from latentrec.storage import ArtifactWriter

    with ArtifactWriter(tmp_path / "bad", "model", {}) as writer:
        for path in shop.sasrec.iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, writer.path / path.name)
        (writer.path / "weights.pt").write_bytes(b"x")
    with refused("registry.unsafe_weights"):
        register(decision(), model=tmp_path / "bad")
