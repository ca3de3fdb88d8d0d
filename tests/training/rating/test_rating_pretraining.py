"""Format-aware pre-training of the placeholder: what it has seen and says, real backbones, wrong input."""

import shutil
from dataclasses import replace

import numpy as np

from latentrec.data.dataset import Dataset
from latentrec.models import read_model
from latentrec.models.rating.text_predictor import load_language_model
from latentrec.prompts.rating_examples import RatingTask
from latentrec.prompts.rating_format import RatingAnswer, parse_answer
from latentrec.prompts.rating_prompt import RatingPrompt, RatingPromptSettings
from latentrec.training.rating.pretrain_config import PretrainRatingConfig
from latentrec.training.rating.pretraining import pretrain_rating
from latentrec.training.rating.pretraining_corpus import InstructionCorpus
from latentrec.training.rating.trainer_setup import hide_means
from tests.errors import refused
from tests.training.rating.saved_weights import same, weights


def test_placeholder_says_what_it_is(base):
    info, _ = read_model(base)
    assert info.system == "rating_placeholder"
    assert "placeholder for an instruct model" in info.notes[0]
    assert "ratings independent of the target" in info.notes[0]
    assert 0 <= info.metrics["end_format_valid"] <= 1
    assert not [path.name for path in base.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_corpus_keeps_the_stated_format_rate_and_its_ratings_say_nothing_of_the_prompt(dataset, tokenizer):
    prompt = RatingPrompt(tokenizer, RatingPromptSettings(max_history=3))
    corpus = InstructionCorpus(dataset.titles, prompt, format_rate=0.3, reading_share=0.2, seed=1)
    texts = corpus.take(4000)
    rated = [text for text in texts if text.rated]
    answers = [parse_answer(text.answer) for text in rated]
    valid = [isinstance(answer, RatingAnswer) for answer in answers]
    assert valid == [text.in_format for text in rated]
    assert abs(np.mean(valid) - 0.3) < 0.03
    assert abs(1 - len(rated) / len(texts) - 0.2) < 0.03
    pairs = [
        (answer.rating, float(text.prompt.rsplit("User mean ", 1)[1].split(".\n")[0]))
        for text, answer in zip(rated, answers, strict=True)
        if isinstance(answer, RatingAnswer) and "User mean unknown" not in text.prompt
    ]
    ratings, means = np.array(pairs).T
    assert abs(np.corrcoef(ratings, means)[0, 1]) < 3 / np.sqrt(len(pairs))


def test_each_mean_is_hidden_from_the_stated_share_of_prompts_and_nothing_else_changes(dataset):
    examples = RatingTask(dataset).examples("train") * 30
    hidden = hide_means(examples, 0.25, seed=3)
    for name in ("user_mean", "item_mean"):
        unknown = [getattr(example, name) is None for example in hidden]
        before = np.mean([getattr(example, name) is None for example in examples])
        assert abs(np.mean(unknown) - (before + 0.25 * (1 - before))) < 0.03
    assert [replace(example, user_mean=1.0, item_mean=1.0) for example in hidden] == [
        replace(example, user_mean=1.0, item_mean=1.0) for example in examples
    ]
    assert hide_means(examples, 0.25, seed=3) == hidden
    assert hide_means(examples, 0.0, seed=3) == examples


def test_placeholder_has_seen_no_rating_of_the_dataset(tiny, rating_dataset, tmp_path):
    """The same titles and reviews with every rating changed give the same model."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from latentrec.storage import ArtifactWriter

    with ArtifactWriter(tmp_path / "changed", "dataset", {}) as writer:
        for path in rating_dataset.glob("*.parquet"):
            table = pq.read_table(path)
            for column in ("rating", "train_mean_rating"):
                if column in table.column_names:
                    position = table.schema.get_field_index(column)
                    table = table.set_column(
                        position, column, pa.array(np.full(table.num_rows, 2.0, np.float32))
                    )
            pq.write_table(table, writer.path / path.name)
        writer.extra.update(Dataset(rating_dataset).manifest.extra)
    config = tiny.replace(max_steps=3, measured_prompts=4)
    for name, dataset in (("a", rating_dataset), ("b", tmp_path / "changed")):
        pretrain_rating(config, dataset=dataset, output=tmp_path / name)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_real_backbone_is_named_and_not_copied(tiny, rating_dataset, base, tmp_path):
    config = tiny.replace(backbone=str(base))
    pretrain_rating(config, dataset=rating_dataset, output=tmp_path / "named")
    assert not list((tmp_path / "named").glob("*.safetensors"))
    loaded = load_language_model(tmp_path / "named")
    assert loaded.model.num_parameters() == load_language_model(base).model.num_parameters()


def test_prompt_options_of_a_real_backbone_are_kept_and_the_rest_is_its_own(rating_dataset, base, tmp_path):
    """Once ``--max-prompt-tokens 384`` was replaced by 2,048 without a word."""
    own = read_model(base)[0].architecture
    given = PretrainRatingConfig(
        backbone=str(base), max_prompt_tokens=384, few_shot=1, max_completion_tokens=40
    )
    pretrain_rating(given, dataset=rating_dataset, output=tmp_path / "named")
    entry = read_model(tmp_path / "named")[0].architecture
    assert entry["prompt"] == own["prompt"] | {"max_prompt_tokens": 384, "few_shot": 1}
    assert entry["max_new_tokens"] == 40
    loaded = load_language_model(tmp_path / "named")
    assert loaded.settings.max_prompt_tokens == 384
    pretrain_rating(
        PretrainRatingConfig(backbone=str(base)), dataset=rating_dataset, output=tmp_path / "as_it_was"
    )
    entry = read_model(tmp_path / "as_it_was")[0].architecture
    assert (entry["prompt"], entry["max_new_tokens"]) == (own["prompt"], own["max_new_tokens"])


def test_budget_that_holds_no_prompt_is_refused_when_the_backbone_is_named(rating_dataset, base, tmp_path):
    config = PretrainRatingConfig(backbone=str(base), max_prompt_tokens=32, few_shot=1)
    with refused("prompt.too_long", "max_prompt_tokens", "32"):
        pretrain_rating(config, dataset=rating_dataset, output=tmp_path / "named")
    assert not (tmp_path / "named").exists()


def test_tokenizer_of_another_model_is_refused(rating_dataset, base, tmp_path):
    """Its ids would be read by embeddings that mean something else, or that there are not."""
    foreign = tmp_path / "foreign"
    shutil.copytree(base, foreign)
    (foreign / "manifest.json").unlink()
    (foreign / "model.json").unlink()
    loaded = load_language_model(foreign)
    loaded.tokenizer.add_tokens([f"new{i}" for i in range(2000)])
    loaded.tokenizer.save_pretrained(foreign)
    with refused("backbone.vocabulary_too_small", "2,502", "502", "foreign"):
        load_language_model(foreign)
