"""The evaluation step with real title models: hosts, exact mode, cost in phases."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from latentrec.catalog import Catalogue
from latentrec.data import Dataset
from latentrec.decoding import DecodingOptions, load_recommender
from latentrec.decoding.title_recommender import TitleRecommender
from latentrec.evaluation import Champion, EvaluateConfig, GateDecision, evaluate
from latentrec.evaluation.ranking.other_latents import other_latents
from latentrec.models import ModelInfo
from latentrec.models.latentr3 import LatentR3Model, architecture, save_latentr3
from latentrec.models.popularity import SCORES_FILE
from latentrec.models.presets import build_preset
from latentrec.prompts import NextItemPrompt
from latentrec.storage import ArtifactWriter, read_manifest
from tests.evaluation.shop import TRAIN_END


def write(output, system, shape, dataset, weights):
    data = Dataset(dataset)
    with ArtifactWriter(output, "model", {"system": system}) as writer:
        Catalogue.from_dataset(data).write(writer.path / "items.parquet")
        weights(writer.path)
        info = ModelInfo(
            system=system,
            stage="test",
            config={},
            architecture=shape,
            metrics={},
            dataset_fingerprint=data.fingerprint,
            parent=None,
            train_end=TRAIN_END,
        )
        info.write(writer.path)
    return output


@pytest.fixture(scope="module")
def models(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("title_models")
    catalogue = Catalogue.from_dataset(Dataset(dataset))
    backbone, tokenizer = build_preset("micro", catalogue.titles, seed=0)
    prompt = NextItemPrompt(tokenizer)
    found = {}
    for name, n_latents in (("backbone", 0), ("latentr3", 1)):
        torch.manual_seed(0)
        model = LatentR3Model(backbone, n_latents=n_latents)
        shape = architecture(model, prompt)
        found[name] = write(
            folder / name,
            "latentr3",
            shape,
            dataset,
            lambda path, model=model: save_latentr3(model, tokenizer, path),
        )
    counts = catalogue.train_counts.astype("float32")
    found["liked"] = write(
        folder / "liked",
        "popularity",
        {},
        dataset,
        lambda path: save_file({"scores": counts}, path / SCORES_FILE),
    )
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beam_width": "exact"},
        {"decoding": "bigrec"},
        {"decoding": "d3", "assistant": "liked", "alpha": 0.5},
        {"decoding": "d3-catalogue", "assistant": "liked", "alpha": 0.5, "beam_width": "exact"},
        {"exclude_history": True, "beam_width": "4"},
    ],
)
def test_title_models_are_scored_under_every_decoding_and_mode(models, dataset, tmp_path, settings):
    config = EvaluateConfig(n_resamples=100, cost_samples=2, max_users=20, **settings)
    order = {name: models[name] for name in ("liked", "backbone", "latentr3")}
    evaluate(config, dataset=dataset, models=order, output=tmp_path / "e")
    costs = json.loads((tmp_path / "e" / "costs.json").read_text())
    mixed = "assistant" in settings
    alone = {"latentr3-alone"} if mixed else set()
    assert set(costs) == {"liked", "backbone", "latentr3", *alone}
    assert set(costs["latentr3"]["phases_ms"]) == {"prefill", "latent", "decode"}
    assert costs["liked"]["phases_ms"] == {}
    comparison = json.loads((tmp_path / "e" / "comparison.json").read_text())
    assert comparison["baseline"] == "backbone"
    gate = GateDecision.read(tmp_path / "e" / "gate.json")
    assert {row.name for row in gate.baselines} == {"liked", "backbone"}
    served_as = read_manifest(tmp_path / "e").extra["served_as"]
    assert served_as["latentr3"]["alpha"] == (0.5 if mixed else 1.0)
    if mixed:
        assert served_as["latentr3-alone"] == served_as["latentr3"] | {"alpha": 1.0}
    lists = pq.read_table(tmp_path / "e" / "predictions_latentr3.parquet")["ranked"].to_pylist()
    assert all(lists)


def scored(dataset, output, model, champion=None, **settings):
    """Lists and scores of each predictions file, the champion's as ``held``."""
    config = EvaluateConfig(n_resamples=100, cost_samples=0, max_users=20, **settings)
    evaluate(config, dataset=dataset, models={"m": model}, output=output, champion=champion)
    files = {"m": output / "predictions_m.parquet", "held": output / "predictions_held.parquet"}
    return {role: pq.read_table(path)["scores"].to_pylist() for role, path in files.items() if path.exists()}


def test_a_model_is_scored_and_served_in_the_dtype_that_was_asked_for(models, dataset, tmp_path):
    asked = {"decoding": "catalogue", "beam_width": "exact"}
    fp32 = scored(dataset, tmp_path / "1", models["latentr3"], **asked)["m"]
    bf16 = scored(dataset, tmp_path / "2", models["latentr3"], dtype="bfloat16", **asked)["m"]
    gaps = [abs(a - b) for one, two in zip(fp32, bf16, strict=True) for a, b in zip(one, two, strict=True)]
    assert 1e-6 < max(gaps) < 0.05
    assert "bfloat16 weights" in (tmp_path / "2" / "report.md").read_text(encoding="utf-8")
    served = DecodingOptions.from_config(read_manifest(tmp_path / "2").extra["served_as"]["m"])
    assert served.dtype == "bfloat16"
    catalogue = Catalogue.from_dataset(Dataset(dataset))
    recommender = TitleRecommender.load(models["latentr3"], catalogue, options=served)
    assert {parameter.dtype for parameter in recommender.model.parameters()} == {torch.bfloat16}


def test_champion_is_judged_as_its_users_get_it_and_not_as_the_run_decodes(models, dataset, tmp_path):
    directory, model = models["backbone"], models["latentr3"]
    as_served = scored(dataset, tmp_path / "1", directory, decoding="bigrec")["m"]
    as_asked = scored(dataset, tmp_path / "2", directory, decoding="catalogue", beam_width="4")["m"]
    assert as_served != as_asked
    bigrec = DecodingOptions(decoding="bigrec")
    for name, served, expected in (("3", bigrec, as_served), ("4", None, as_asked)):
        champion = Champion(directory, "held", "1", served)
        found = scored(dataset, tmp_path / name, model, champion, decoding="catalogue", beam_width="4")
        assert found["held"] == expected
    assert "held is decoded by bigrec, 10 beams." in (tmp_path / "3" / "report.md").read_text(
        encoding="utf-8"
    )


def test_weight_of_the_mixture_is_chosen_on_validation_for_each_model(models, dataset, tmp_path):
    order = {name: models[name] for name in ("liked", "backbone", "latentr3")}
    config = EvaluateConfig(
        n_resamples=100, cost_samples=0, max_users=20, assistant="liked", alpha_samples=30
    )
    evaluate(config, dataset=dataset, models=order, output=tmp_path / "e")
    alphas = json.loads((tmp_path / "e" / "comparison.json").read_text())["alphas"]
    assert set(alphas) == {"backbone", "latentr3"}
    for name, choice in alphas.items():
        values = choice["values"]
        best = max((ndcg, float(alpha)) for alpha, ndcg in values.items())[1]
        assert float(best) == choice["alpha"]
        assert choice["n_samples"] == 30
        served = read_manifest(tmp_path / "e").extra["served_as"][name]
        assert served["alpha"] == choice["alpha"]
    assert "chosen on 30 validation samples" in (tmp_path / "e" / "report.md").read_text()


def test_without_an_assistant_title_models_rank_alone_and_say_so(models, dataset, tmp_path):
    output = tmp_path / "e"
    default = scored(dataset, output, models["latentr3"])
    alone = scored(dataset, tmp_path / "alone", models["latentr3"], decoding="catalogue")
    assert default == alone
    assert "rank alone" in (output / "report.md").read_text()


def test_the_loaders_default_scores_as_the_evaluation_does(models, dataset, tmp_path):
    """One default everywhere: a documented call of the loader gives what the evaluation has measured."""
    data = Dataset(dataset)
    scores = scored(dataset, tmp_path / "e", models["latentr3"])["m"]
    rows = pq.read_table(tmp_path / "e" / "predictions_m.parquet").to_pylist()
    recommender = load_recommender(models["latentr3"], Catalogue.from_dataset(data))
    samples = data.split("test")
    chosen = np.flatnonzero(np.isin(samples.user_ids, [row["user_id"] for row in rows]))
    for index, row, expected in zip(chosen[:5], rows, scores, strict=False):
        own = np.unique(samples.history(index))
        ranking = recommender.rank([samples.history(index)], len(row["ranked"]), exclude=[own])
        assert ranking.item_ids[0].tolist() == row["ranked"]
        np.testing.assert_allclose(ranking.scores[0], expected, atol=1e-4)


def test_a_change_of_decoding_alone_can_win_the_promotion_or_lose(models, dataset, tmp_path):
    directory = models["latentr3"]
    champion = Champion(directory, "held", "1", DecodingOptions(decoding="bigrec"))
    found = scored(dataset, tmp_path / "other", directory, champion, decoding="catalogue")
    decision = GateDecision.read(tmp_path / "other" / "gate.json")
    assert found["m"] != found["held"]
    assert decision.difference != 0
    scored(dataset, tmp_path / "same", directory, champion, decoding="bigrec")
    assert GateDecision.read(tmp_path / "same" / "gate.json").difference == 0


def test_exact_mode_and_beams_over_the_whole_catalogue_give_the_same_predictions(models, dataset, tmp_path):
    tables = []
    for width in ("exact", "40"):
        config = EvaluateConfig(n_resamples=100, cost_samples=0, max_users=20, beam_width=width)
        evaluate(config, dataset=dataset, models={"m": models["latentr3"]}, output=tmp_path / width)
        tables.append(pq.read_table(tmp_path / width / "predictions_m.parquet")["ranked"].to_pylist())
    same = sum(first == second for first, second in zip(*tables, strict=True))
    assert same >= 0.95 * len(tables[0])  # ties within rounding may swap


def test_title_models_with_latents_are_ranked_with_another_user_s_latent_too(dataset, models, tmp_path):
    config = EvaluateConfig(n_resamples=200, cost_samples=0, alpha=1.0, metric="ndcg_at_10")
    evaluate(config, dataset=dataset, models=models, output=tmp_path / "evaluation")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    own, other = (metrics["latentr3"][name] for name in ("ndcg_at_10", "other_latent_ndcg_at_10"))
    gap = metrics["latentr3"]["own_latent_gap_ndcg_at_10"]
    assert gap["value"] == pytest.approx(own["value"] - other["value"])
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert "other_latent_ndcg_at_10" not in metrics["backbone"]
    if gap["low"] <= 0:
        assert "is not reasoning" in (tmp_path / "evaluation" / "report.md").read_text()


def test_another_user_s_latent_is_read_within_the_block_only(dataset, models):
    catalogue = Catalogue.from_dataset(Dataset(dataset))
    recommender = load_recommender(models["latentr3"], catalogue, DecodingOptions(decoding="catalogue"))
    samples = Dataset(dataset).split("test")
    histories = [history for history in samples.histories() if len(history)][:16]
    assert isinstance(recommender, TitleRecommender)
    model, seen = recommender.model, []
    decode = type(model).begin_answer

    def spy(self, state, latents_BND=None):
        own = self.roll_out(state).means_BMND[:, 0]
        seen.append((own, latents_BND))
        return decode(self, state, latents_BND=latents_BND)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "begin_answer", spy)
        with other_latents(recommender):
            recommender.rank(histories, 5)
        with other_latents(recommender, "mean"):
            recommender.rank(histories, 5)
        recommender.rank(histories, 5)
    (own, shuffled), (_, mean), (_, none) = seen
    assert none is None
    half = len(own) // 2
    assert torch.equal(shuffled, torch.cat([own[-half:], own[:-half]]))
    assert torch.allclose(mean, own.mean(dim=0).expand_as(own))
