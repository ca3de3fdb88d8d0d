"""Stage 1's settings: the paper's profile, and what is refused before any training."""

import pytest

from latentrec.core import config_from_dict
from latentrec.training.latentr3.sft_config import LATENT_LOSSES, SFTConfig
from latentrec.training.latentr3.title_objective_config import TitleObjectiveConfig
from tests.errors import refused


def test_paper_profile_is_the_publication():
    config = SFTConfig(profile="paper", backbone="Qwen/Qwen2.5-1.5B")
    assert (config.learning_rate, config.warmup_steps, config.num_train_epochs) == (3e-4, 20, 3)
    assert (config.batch_size, config.max_prompt_tokens, config.bf16) == (128, 512, True)
    assert (config.reasoning_tokens, config.patience, config.evals_per_epoch) == (1, 1, 1)


def test_preset_learns_faster_unless_told_otherwise():
    assert SFTConfig(backbone="tiny").learning_rate == 2e-3
    assert SFTConfig(backbone="tiny", profile="paper").learning_rate == 3e-4
    assert SFTConfig(backbone="tiny", learning_rate=1e-4).learning_rate == 1e-4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"reasoning_tokens": -1}, ("sft.reasoning_tokens", "-1", "0")),
        ({"num_train_epochs": 0}, ("sft.num_train_epochs", "0")),
        ({"batch_size": 0}, ("sft.batch_size", "0")),
        ({"learning_rate": 2.0}, ("sft.learning_rate", "2.0")),
        ({"train_backbone": "frozen", "reasoning_tokens": 0}, ("sft.train_backbone", "'frozen'")),
        ({"train_backbone": "frozen", "latent": "last_hidden"}, ("sft.train_backbone", "'frozen'")),
        (
            {"metric_for_best_model": "ndcg_at_10", "ranking_samples": 0},
            ("sft.metric_for_best_model", "'ndcg_at_10'", "100"),
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, named):
    with refused("config.invalid", *named):
        SFTConfig(**options)


def test_batch_that_processes_cannot_share_is_refused():
    with refused("config.conflict", "batch_size", "100", "8"):
        SFTConfig(batch_size=100, gradient_accumulation_steps=2).check_world(4)


def test_packing_can_be_switched_off_by_a_flag():
    assert config_from_dict(SFTConfig, {"packing": "none"}).packing == "none"
    assert config_from_dict(SFTConfig, {}).packing == "exact"


def test_fsdp_refuses_what_reads_whole_weights_outside_the_pass():
    assert SFTConfig(sharding="fsdp").sharding == "fsdp"
    with refused("config.invalid", "sft.ablation.latent_loss", "fsdp"):
        SFTConfig(sharding="fsdp", **{"ablation.latent_loss": LATENT_LOSSES[-1]})


def test_fsdp_refuses_a_number_of_passes_that_differs_between_processes():
    assert TitleObjectiveConfig(sharding="fsdp").estimator == "exact"
    with refused("config.invalid", "title_objective.sharding", "sampled"):
        TitleObjectiveConfig(sharding="fsdp", estimator="sampled", objective="grpo")
