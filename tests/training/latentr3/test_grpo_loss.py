"""Stage 2's mathematics against hand calculations, closed forms and finite differences."""

import math

import pytest
import torch

from latentrec.core import UserError, config_from_dict
from latentrec.training.latentr3 import grpo_loss as objective
from latentrec.training.latentr3.grpo_config import GRPOConfig


def test_perplexity_reward_is_the_paper_formula():
    log_probs = torch.tensor([[[-1.0, -2.0, 0.0], [-0.5, -0.5, 0.0]]])
    counted = torch.tensor([[True, True, False]])
    reward = objective.likelihood_reward("perplexity", log_probs, counted)
    assert torch.allclose(reward, torch.tensor([[-math.exp(1.5), -math.exp(0.5)]]))
    nll = objective.likelihood_reward("nll", log_probs, counted)
    assert torch.allclose(nll, torch.tensor([[-1.5, -0.5]]))
    clipped = objective.likelihood_reward("clipped_perplexity", log_probs, counted, perplexity_limit=2.0)
    assert torch.allclose(clipped, torch.tensor([[-2.0, -math.exp(0.5)]]))


def test_noise_free_copy_sets_the_batch_baseline():
    rewards = torch.tensor([[-3.0, -5.0], [-1.0, -2.0]])
    mean = -2.0  # of −3 and −1, the clean copies
    centred = torch.tensor([[-1.0, -3.0], [1.0, 0.0]])
    assert torch.allclose(rewards - mean, centred)
    expected = centred / (math.sqrt(1 + 9 + 1 + 0) + 1e-6)
    assert torch.allclose(objective.advantages(rewards, "batch"), expected)


def test_group_baseline_is_plain_grpo():
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.allclose(objective.advantages(rewards, "group"), torch.tensor([[-1.0, 0, 1]]) / (1 + 1e-4))


def test_own_baseline_compares_with_the_same_prompt_clean_copy():
    rewards = torch.tensor([[-3.0, -2.0], [-1.0, -4.0]])
    expected = torch.tensor([[0.0, 1.0], [0.0, -3.0]]) / math.sqrt((1 + 9) / 4)
    assert torch.allclose(objective.advantages(rewards, "own"), expected, atol=1e-5)


def test_parts_of_two_prompts_are_the_authors_batches_and_an_odd_one_is_no_error():
    rewards = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    ours = objective.advantages_in_parts(rewards, "batch", 2)
    expected = [objective.advantages(rewards[i : i + 2], "batch") for i in (0, 2, 4)]
    assert torch.equal(ours, torch.cat(expected))


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


LOGITS = torch.tensor([0.3, -1.2, 2.0, 0.1, -0.4], dtype=torch.float64)


def grpo_gradient(rewards, log_p_of_drawn, counts):
    """Gradient on the logits of a categorical policy of GRPO's group, whose titles were drawn so often."""
    mean = (counts * rewards).sum() / counts.sum()
    deviation = ((counts * (rewards - mean) ** 2).sum() / counts.sum()).sqrt()
    logits = LOGITS.clone().requires_grad_()
    advantage = (rewards - mean) / deviation
    (counts / counts.sum() * advantage * log_p_of_drawn(logits)).sum().backward()
    return logits.grad


@pytest.mark.parametrize("target", range(5))
def test_title_weights_are_grpo_with_every_title_counted(target):
    """Counting each title as often as the policy draws it is the limit of ever larger groups."""
    policy = torch.softmax(LOGITS, 0)
    rewards = torch.nn.functional.one_hot(torch.tensor(target), 5).double()
    expected = grpo_gradient(rewards, lambda logits: torch.log_softmax(logits, 0), policy)
    logits = LOGITS.clone().requires_grad_()
    log_p = torch.log_softmax(logits, 0)[target]
    (objective.title_weights(log_p.detach(), "group") * log_p).backward()
    assert torch.allclose(logits.grad, expected, atol=1e-9)


def test_a_large_group_of_sampled_titles_tends_to_the_title_weights():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(torch.softmax(LOGITS, 0), 400_000, replacement=True, generator=generator)
    counts = torch.bincount(drawn, minlength=5).double()
    rewards = torch.nn.functional.one_hot(torch.tensor(3), 5).double()
    sampled = grpo_gradient(rewards, lambda logits: torch.log_softmax(logits, 0), counts)
    logits = LOGITS.clone().requires_grad_()
    log_p = torch.log_softmax(logits, 0)[3]
    (objective.title_weights(log_p.detach(), "group") * log_p).backward()
    assert torch.allclose(logits.grad, sampled, atol=5e-3)


@pytest.mark.parametrize("advantage", ["group", "none"])
def test_title_weights_climb_the_title_objective(advantage):
    log_p = torch.linspace(-9, -1e-3, 40, dtype=torch.float64).requires_grad_()
    objective.title_objective(log_p, advantage).sum().backward()
    scale = 1.0 if advantage == "none" else math.pi
    assert torch.allclose(log_p.grad * scale, objective.title_weights(log_p.detach(), advantage))


@pytest.mark.parametrize("advantage", ["group", "none"])
def test_title_weights_stay_finite_at_both_ends(advantage):
    ends = torch.tensor([-200.0, -1e-9, 0.0])
    weights = objective.title_weights(ends, advantage)
    assert torch.isfinite(weights).all()
    assert weights[0] < 1e-40
    reached = objective.title_objective(ends, advantage)
    assert reached[0] < 1e-40
    assert reached[2] == 1


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
    centred = [s - rewards[0] for s in rewards]
    norm = math.sqrt(sum(c * c for c in centred)) + 1e-6
    for k, e in enumerate(NOISE[0]):
        for t in range(2):  # ∇ log softmax = row of the answer − mean row under π
            probabilities = torch.softmax(W[t] @ (MEAN[0] + e), 0)
            by_hand -= centred[k] / norm * (W[t][ANSWER[t]] - probabilities @ W[t]) / 6
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
    ("options", "message"),
    [
        ({"group_size": 1}, "group_size is 1"),
        ({"noise_std": -0.5}, "noise_std is -0.5"),
        ({"noise_std": 0.0}, "noise_std is 0.0"),
        ({"batch_size": 100}, "no multiple of group_size"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"beta": -1.0}, "beta is -1.0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"clip_low": 0.0}, "clip_low is 0"),
        ({"select_on": "ndcg_at_10", "ranking_samples": 0}, "rank at least"),
        ({"beta": 0.1}, "beta is 0.1; estimator title_policy"),
        ({"iterations": 2}, "iterations is 2; estimator title_policy"),
        ({"reward": "nll"}, "title_policy knows exact_match"),
        ({"advantage": "own"}, "title_policy knows group and none"),
        ({"noise": "absolute"}, "noises no latent"),
        ({"estimator": "gaussian", "advantage": "none"}, "advantage is 'none'"),
        ({"estimator": "gaussian", "select_on": "objective"}, "is of estimator title_policy"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        GRPOConfig(**options)


def test_each_estimator_brings_its_own_defaults():
    titles, latents = GRPOConfig(), GRPOConfig(estimator="gaussian")
    assert (titles.estimator, titles.reward, titles.advantage) == ("title_policy", "exact_match", "group")
    assert (titles.train_backbone, titles.likelihood, titles.noise_std) == (True, "catalogue", None)
    assert (latents.reward, latents.advantage, latents.noise, latents.noise_std) == (
        "nll",
        "own",
        "relative",
        0.1,
    )
    assert (latents.train_backbone, latents.likelihood, latents.select_on) == (False, None, "loss")
    assert config_from_dict(GRPOConfig, {"advantage": "none"}).advantage == "none"


def test_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(UserError, match="use a multiple of 24"):
        GRPOConfig(batch_size=256, group_size=8).check_world(3)


def test_paper_profile_is_the_publication():
    config = GRPOConfig(profile="paper")
    assert (config.estimator, config.reward, config.advantage) == ("target_likelihood", "perplexity", "batch")
    assert (config.noise, config.noise_std, config.group_size, config.batch_size) == ("absolute", 1.5, 8, 256)
    assert (config.clip_low, config.clip_high, config.beta, config.iterations) == (0.2, 0.28, 0.0, 1)
    assert (config.warmup_steps, config.schedule, config.epochs) == (200, "cosine", 1.0)
    assert config.advantage_prompts == 2


def test_explicit_options_win_over_the_profile():
    assert GRPOConfig(profile="paper", noise_std=0.7).noise_std == 0.7
