"""Stage 2's mathematics against hand calculations, closed forms and finite differences."""

import math

import pytest
import torch

from latentrec.training.latentr3 import grpo_loss as objective
from latentrec.training.latentr3.grpo_config import LatentGRPOConfig
from tests.errors import refused


def test_perplexity_reward_is_the_paper_formula():
    log_probs = torch.tensor([[[-1.0, -2.0, 0.0], [-0.5, -0.5, 0.0]]])
    counted = torch.tensor([[True, True, False]])
    reward = objective.likelihood_reward("perplexity", log_probs, counted)
    assert torch.allclose(reward, torch.tensor([[-math.exp(1.5), -math.exp(0.5)]]))
    nll = objective.likelihood_reward("nll", log_probs, counted)
    assert torch.allclose(nll, torch.tensor([[-1.5, -0.5]]))
    log_probs[0, 0] *= 4  # a mean of −6: perplexity 403
    clipped = objective.likelihood_reward("clipped_perplexity", log_probs, counted)
    assert torch.allclose(clipped, torch.tensor([[-100.0, -math.exp(0.5)]]))


def test_noise_free_copy_sets_the_batch_baseline():
    rewards = torch.tensor([[-3.0, -5.0], [-1.0, -2.0]])
    mean = -2.0  # of −3 and −1, the clean copies
    centered = torch.tensor([[-1.0, -3.0], [1.0, 0.0]])
    assert torch.allclose(rewards - mean, centered)
    expected = centered / (math.sqrt(1 + 9 + 1 + 0) + 1e-6)
    assert torch.allclose(objective.advantages(rewards, "batch"), expected)


def test_group_baseline_is_plain_grpo():
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.allclose(objective.advantages(rewards, "group"), torch.tensor([[-1.0, 0, 1]]) / (1 + 1e-4))


def test_own_baseline_compares_with_the_same_prompt_clean_copy():
    rewards = torch.tensor([[-3.0, -2.0], [-1.0, -4.0]])
    expected = torch.tensor([[0.0, 1.0], [0.0, -3.0]]) / math.sqrt((1 + 9) / 4)
    assert torch.allclose(objective.advantages(rewards, "own"), expected, atol=1e-5)


def test_microbatches_of_two_prompts_are_the_authors_and_an_odd_one_is_no_error():
    rewards = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    ours = objective.batch_advantages(rewards, "batch", "microbatch")
    expected = [objective.advantages(rewards[i : i + 2], "batch") for i in (0, 2, 4)]
    assert torch.equal(ours, torch.cat(expected))
    whole = objective.batch_advantages(rewards, "batch", "optimizer")
    assert torch.equal(whole, objective.advantages(rewards, "batch"))


def test_prompt_token_mean_weighs_prompts_alike_whatever_their_length():
    values = torch.tensor([[[1.0, 9.0], [3.0, 9.0]], [[2.0, 4.0], [6.0, 8.0]]])
    counted = torch.tensor([[True, False], [True, True]])
    assert objective.prompt_token_means(values, counted).tolist() == [2.0, 5.0]


def test_surrogate_clips_as_ppo_does():
    log_ratio = torch.tensor([0.0, 0.5, 0.5, -0.5, -0.5]).requires_grad_()
    advantage = torch.tensor([2.0, 1.0, -1.0, 1.0, -1.0])
    loss, active = objective.clipped_surrogate(log_ratio, advantage, 0.2, 0.28)
    ratio = math.exp(0.5)
    assert torch.allclose(loss, torch.tensor([-2.0, -1.28, ratio, -math.exp(-0.5), 0.8]))
    assert active.tolist() == [False, True, False, False, True]
    loss.sum().backward()
    assert (log_ratio.grad == 0).tolist() == active.tolist()


def test_density_ratio_and_kl_are_those_of_torch_distributions():
    generator = torch.Generator().manual_seed(1)
    actions, means, old = (torch.randn(3, 4, 2, 5, generator=generator) for _ in range(3))
    sigma = torch.tensor([[0.5], [1.0], [2.0]])
    scale = sigma[..., None, None]
    normal = torch.distributions.Normal
    expected = (normal(means, scale).log_prob(actions) - normal(old, scale).log_prob(actions)).sum((-1, -2))
    assert torch.allclose(objective.gaussian_log_ratio(actions, means, old, sigma), expected, atol=1e-4)
    kl = torch.distributions.kl_divergence(normal(means, scale), normal(old, scale)).sum((-1, -2))
    assert torch.allclose(objective.gaussian_kl(means, old, sigma), kl, atol=1e-4)


def test_concentration_is_the_share_of_the_heaviest_prompts():
    advantages = torch.ones(200, 2)
    advantages[3] = 10
    assert objective.concentration(advantages).item() == pytest.approx((200 + 2) / (200 + 398))


# A two-token toy: π(y | r) over two tokens with logits W r, answer tokens 0 then 1.

W = torch.tensor([[[1.0, -0.5], [0.3, 0.8]], [[-0.7, 0.2], [0.4, 1.1]]], dtype=torch.float64)
ANSWER = (0, 1)


def toy_log_probs(r):
    """Token log-probabilities of the answer, (…, 2)."""
    return torch.stack([torch.log_softmax(r @ W[t].T, -1)[..., ANSWER[t]] for t in range(2)], -1)


def toy_reward(r):
    return -torch.exp(-toy_log_probs(r).mean(-1))


MEAN = torch.tensor([[0.9, -0.4]], dtype=torch.float64)
NOISE = torch.tensor([[[0.0, 0.0], [0.3, -0.2], [-0.5, 0.6]]], dtype=torch.float64)


def test_one_step_of_the_published_estimator_by_hand():
    mean = MEAN.clone().requires_grad_()
    log_probs = toy_log_probs(mean[:, None] + NOISE)
    advantages = objective.advantages(
        objective.likelihood_reward("perplexity", log_probs.detach(), torch.ones(1, 2, dtype=torch.bool)),
        "batch",
    )
    loss, _ = objective.clipped_surrogate(log_probs - log_probs.detach(), advantages[..., None], 0.2, 0.28)
    (loss.sum() / 6).backward()
    by_hand = torch.zeros(2, dtype=torch.float64)
    rewards = [float(toy_reward(MEAN[0] + e)) for e in NOISE[0]]
    centered = [s - rewards[0] for s in rewards]
    norm = math.sqrt(sum(c * c for c in centered)) + 1e-6
    for k, e in enumerate(NOISE[0]):
        for t in range(2):  # ∇ log softmax = row of the answer − mean row under π
            probabilities = torch.softmax(W[t] @ (MEAN[0] + e), 0)
            by_hand -= centered[k] / norm * (W[t][ANSWER[t]] - probabilities @ W[t]) / 6
    assert torch.allclose(mean.grad[0], by_hand, atol=1e-6)


def test_one_step_of_the_gaussian_estimator_by_hand():
    sigma = 0.4
    mean = MEAN.clone().requires_grad_()
    actions = (MEAN[:, None] + NOISE)[:, :, None]
    rewards = toy_reward(actions[:, :, 0])
    advantages = objective.advantages(rewards, "own")
    ratio = objective.gaussian_log_ratio(
        actions, mean[:, None, None], MEAN[:, None, None], torch.tensor([[sigma]])
    )
    loss, _ = objective.clipped_surrogate(ratio.double(), advantages, 0.2, 0.28)
    (loss.sum() / 3).backward()
    by_hand = -sum(float(advantages[0, k]) * NOISE[0, k] / sigma**2 for k in range(3)) / 3
    assert torch.allclose(mean.grad[0], by_hand, atol=1e-6)


def expected_reward_gradient(sigma, draws):
    """Central differences of E[s(r + ε)] on common noise."""
    gradient = torch.zeros(2, dtype=torch.float64)
    for i in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[i] = 1e-4
        up, down = toy_reward(MEAN[0] + step + draws * sigma), toy_reward(MEAN[0] - step + draws * sigma)
        gradient[i] = (up - down).mean() / 2e-4
    return gradient


@pytest.fixture(scope="module")
def draws():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(400_000, 2, generator=generator, dtype=torch.float64)


def test_gaussian_estimator_points_where_the_expected_reward_grows(draws):
    sigma = 0.5
    actions = MEAN + sigma * draws
    gains = toy_reward(actions) - toy_reward(MEAN)
    score = (gains[:, None] * draws / sigma).mean(0)  # what the estimator's loss descends, negated
    expected = expected_reward_gradient(sigma, draws)
    assert torch.allclose(score, expected, rtol=0.03, atol=2e-3)
    assert float(torch.nn.functional.cosine_similarity(score, expected, dim=0)) > 0.99


def test_published_estimator_does_not_estimate_the_expected_reward_gradient(draws):
    """E[A ∇ log π(y | r + ε)] ≈ σ²(∇²f ∇s + ½ tr(∇²s) ∇f): where noise lowers the reward it points away.

    ``f = log π(y | r)`` and ``s`` the reward. At a latent where the reward is concave (noise lowers it on
    average) the second term has the sign of −∇f: the update lowers the likelihood of the answer.
    """
    sigma = 0.5
    mean = MEAN.clone().requires_grad_()
    actions = mean + sigma * draws
    log_probs = toy_log_probs(actions)
    rewards = toy_reward(actions).detach()
    advantages = rewards - toy_reward(MEAN)
    (published,) = torch.autograd.grad((advantages * log_probs.sum(-1)).mean(), mean)
    expected = expected_reward_gradient(sigma, draws)
    assert rewards.mean() < toy_reward(MEAN)
    cosine = torch.nn.functional.cosine_similarity(published[0], expected, dim=0)
    assert float(cosine) < 0
    assert float(published.norm() / expected.norm()) < 0.5


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_generations": 1}, ("grpo.num_generations", "1")),
        ({"noise_std": -0.5}, ("grpo.noise_std", "-0.5")),
        ({"noise_std": 0.0}, ("grpo.noise_std", "0.0")),
        ({"batch_size": 100}, ("grpo.batch_size", "100", "num_generations 8")),
        ({"learning_rate": 0.0}, ("grpo.learning_rate", "0.0")),
        ({"beta": -1.0}, ("grpo.beta", "-1.0")),
        ({"num_iterations": 0}, ("grpo.num_iterations", "0")),
        ({"epsilon": 0.0}, ("grpo.epsilon", "0.0")),
        (
            {"metric_for_best_model": "ndcg_at_10", "ranking_samples": 0},
            ("grpo.metric_for_best_model", "ranking_samples is 0"),
        ),
        ({"learning_rates": ()}, ("grpo.learning_rates", "[]")),
        ({"learning_rates": (1e-4, 1e-4)}, ("grpo.learning_rates", "[0.0001, 0.0001]")),
        ({"learning_rate": 1e-3, "learning_rates": (1e-4, 1e-5)}, ("grpo.learning_rate", "0.001", "1e-05")),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, named):
    with refused("config.invalid", *named):
        LatentGRPOConfig(**options)


def test_default_profile_is_the_score_function_on_the_latent():
    config = LatentGRPOConfig()
    assert (config.estimator, config.reward, config.advantage) == ("gaussian", "nll", "own")
    assert (config.noise, config.noise_std, config.advantage_batch) == ("relative", 0.1, "optimizer")
    assert (config.learning_rate, config.load_best_model_at_end, config.metric_for_best_model) == (
        3e-4,
        True,
        "loss",
    )
    assert (config.train_backbone, config.likelihood) == (False, None)


def test_batch_that_processes_cannot_share_is_refused():
    with refused("config.conflict", "24"):
        LatentGRPOConfig(batch_size=256, num_generations=8).check_world(3)


def test_paper_profile_is_the_publication():
    config = LatentGRPOConfig(profile="paper")
    assert (config.estimator, config.reward, config.advantage) == ("target_likelihood", "perplexity", "batch")
    assert (config.noise, config.noise_std, config.num_generations, config.batch_size) == (
        "absolute",
        1.5,
        8,
        256,
    )
    assert (config.epsilon, config.epsilon_high, config.beta, config.num_iterations) == (0.2, 0.28, 0.0, 1)
    assert (config.warmup_steps, config.lr_scheduler_type, config.num_train_epochs) == (200, "cosine", 1.0)
    assert (config.advantage_batch, config.load_best_model_at_end, config.bf16) == ("microbatch", False, True)
    assert config.learning_rates == (1e-5, 5e-5, 1e-4, 5e-4)
    assert (config.learning_rate, config.collapse_below) == (None, 0.0)
    rates = [(trial.learning_rate, trial.learning_rates) for trial in config.at_each_rate()]
    assert rates == [(rate, (rate,)) for rate in config.learning_rates]


def test_explicit_options_win_over_the_profile():
    assert LatentGRPOConfig(profile="paper", noise_std=0.7).noise_std == 0.7
