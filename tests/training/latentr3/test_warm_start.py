"""``sft --init-from``: training begins at another model's weights, and what does not fit is refused."""

import pytest

from latentrec.cli import main
from latentrec.models import read_model
from tests.errors import refused
from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.latentr3_runs import Recorder, sft, weights


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset", n_users=40, n_items=24, length=(4, 9))


@pytest.fixture(scope="module")
def plain(dataset, tmp_path_factory):
    """A model without latents (BIGRec) and the figures of its training."""
    output, recorder = tmp_path_factory.mktemp("plain") / "model", Recorder()
    sft(dataset, output, recorder, reasoning_tokens=0)
    return output, recorder


@pytest.fixture(scope="module")
def latent(dataset, plain, tmp_path_factory):
    """LatentRATT alone, trained on the frozen backbone of ``plain``."""
    output = tmp_path_factory.mktemp("latent") / "model"
    sft(dataset, output, init_from=plain[0], train_backbone="frozen", num_train_epochs=1)
    return output


def test_first_look_is_the_model_that_training_starts_from(dataset, plain, tmp_path):
    output, recorder = plain
    again = Recorder()
    sft(
        dataset,
        tmp_path / "on",
        again,
        init_from=output,
        reasoning_tokens=0,
        num_train_epochs=1,
        learning_rate=1e-4,
    )
    before = min(recorder.series("valid/loss").values())
    assert again.series("valid/loss")[0] == pytest.approx(before, abs=1e-6)
    assert read_model(tmp_path / "on")[0].metrics["loss"] <= before + 1e-6


def test_latent_ratt_can_be_added_to_a_model_without_one(plain, latent):
    before, after = weights(plain[0]), weights(latent)
    assert all(after[name].equal(before[name]) for name in before)
    assert any(name.startswith("ratt.") for name in after)
    info, _ = read_model(latent)
    assert info.parent == read_model(plain[0])[1].fingerprint
    assert any("0 of 24 titles were not in its catalogue" in note for note in info.notes)


def test_command_goes_on_with_latent_ratt(dataset, latent, tmp_path):
    output = tmp_path / "on"
    places = ["--dataset", str(dataset), "--output", str(output), "--init-from", str(latent)]
    options = "--num-train-epochs 1 --learning-rate 1e-9 --batch-size 64 --validation-samples 20"
    options += " --ranking-samples 0"
    main(["sft", *places, *options.split()])
    before, after = weights(latent), weights(output)
    assert all(after[name].allclose(before[name], atol=1e-6) for name in before)


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({"reasoning_tokens": 0}, "model.other_shape", ("reasoning_tokens 0",)),
        ({"backbone": "small"}, "config.conflict", ("'micro'", "small")),
    ],
)
def test_what_the_model_cannot_become_is_refused(dataset, latent, tmp_path, options, code, named):
    with refused(code, *named):
        sft(dataset, tmp_path / "model", init_from=latent, **options)


def test_model_of_another_shop_is_refused(dataset, latent, tmp_path, monkeypatch):
    monkeypatch.setattr("latentrec.data.Dataset.titles", [f"Another {i}" for i in range(24)])
    with refused("model.other_dataset"):
        sft(dataset, tmp_path / "model", init_from=latent)
