"""``train_rpt`` as a whole, and the parts of its objective."""

import copy
import json
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch

from latentrec.catalog import Catalogue
from latentrec.core import Interrupted
from latentrec.data import Dataset
from latentrec.decoding.recommender_loader import load_recommender
from latentrec.models import read_model
from latentrec.models.sequential import sample_steps
from latentrec.training.common.policy_gradient import group_advantage
from latentrec.training.sequential import training_loop
from latentrec.training.sequential.rows import NO_TARGET, pack_by_user
from latentrec.training.sequential.rpt import load_policy, objective, train_rpt, training_rows
from latentrec.training.sequential.rpt_config import ESTIMATORS, RPTConfig
from latentrec.training.sequential.rpt_loss import likelihood_loss
from latentrec.training.sequential.rpt_objective import RPTLoss
from latentrec.training.sequential.state import reseed
from latentrec.training.sequential.train import SequentialConfig, SequentialData, train_sequential
from tests.errors import refused
from tests.fixtures.older_manifest import older_model
from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.killing import count_steps, kill_after_first_checkpoint

FEW = {"num_train_epochs": 2, "batch_size": 100, "filter_top": 10, "num_generations": 2}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    root = tmp_path_factory.mktemp("rpt")
    dataset = write_dataset(root / "data", n_users=40)
    config = SequentialConfig(encoder="lares", hidden_size=8, inner_dim=16, num_train_epochs=4, batch_size=64)
    train_sequential(config, dataset=dataset, output=root / "spt")
    return dataset, root / "spt"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_post_training_never_ends_below_its_start_on_validation(pretrained, tmp_path, estimator):
    dataset, model = pretrained
    train_rpt(RPTConfig(estimator=estimator, **FEW), dataset=dataset, model=model, output=tmp_path / "m")
    before, manifest = read_model(model)
    after, _ = read_model(tmp_path / "m")
    assert after.metrics["ndcg_at_10"] >= before.metrics["ndcg_at_10"]
    assert after.stage == "rpt"
    assert after.parent == manifest.fingerprint
    assert after.architecture["hidden_dropout"] == 0.1


def test_published_loss_is_what_the_forwards_give_written_out(pretrained):
    dataset, model = pretrained
    parent, _ = read_model(model)
    config = RPTConfig(
        estimator="target_likelihood", num_generations=3, filter_passes=0, beta=0.5,
        hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    data = SequentialData.read(dataset)
    policy = load_policy(model, parent, config).train()
    with torch.no_grad():  # away from the reference, so that the drift counts
        reference = copy.deepcopy(policy).eval().requires_grad_(False)
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    rows = pack_by_user(data.train, policy.max_length)
    indices = np.arange(6)
    noise = {}

    def fixed(owner):
        def draw(like):  # one initial state a forward, the same in the loss and in the written-out version
            noise.setdefault(owner, []).append(torch.randn_like(like))
            return noise[owner][-1]

        return draw

    policy.draw_initial, reference.draw_initial = fixed("policy"), fixed("reference")
    loss = RPTLoss(policy, reference, rows, config, mean_steps=3, step_sampler="poisson_lognormal")
    reseed(1, 0)
    value, parts = loss(indices)
    policy.zero_grad()
    value.backward()
    gradient = policy.core_block[0].inner.weight.grad.clone()
    reseed(1, 0)
    steps = [sample_steps("poisson_lognormal", 3) for _ in range(3)]
    positions = [
        (row, p)
        for row in indices
        for p in range(rows.lengths[row])
        if rows.targets[rows.offsets[row] + p] != NO_TARGET
    ]
    log_p, ref, rewards = [], [], []
    width = rows.lengths[indices].max()
    for g in range(3):
        sides = []
        for who, net in (("policy", policy), ("reference", reference)):
            padded = torch.full((6, width), net.n_items)
            for row in indices:
                start, stop = rows.offsets[row], rows.offsets[row + 1]
                padded[row, : stop - start] = torch.from_numpy(rows.items[start:stop])
            hidden, thought = net.prelude(padded), noise[who][g]
            per_step = []
            for _ in range(steps[g]):
                thought = net.step(thought, hidden)
                logits = torch.stack([net.score(thought[row, p][None])[0] for row, p in positions])
                per_step.append(logits)
            sides.append(per_step)
        targets = torch.tensor([rows.targets[rows.offsets[row] + p] for row, p in positions])
        pick = torch.arange(len(targets))
        log_p.append(torch.stack([x.log_softmax(-1)[pick, targets] for x in sides[0]]))
        ref.append(torch.stack([x.log_softmax(-1)[pick, targets] for x in sides[1]]).detach())
        final = sides[0][-1]
        rewards.append(((final > final[pick, targets][:, None]).sum(1) < 10).float())
    advantage = group_advantage(torch.stack(rewards), dim=0)
    expected = sum(likelihood_loss(log_p[g], ref[g], advantage[g], 0.5).mean() for g in range(3)) / 3
    assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)  # terms of size 1
    assert parts["reward"] == pytest.approx(torch.stack(rewards).mean().item())
    policy.zero_grad()
    expected.backward()
    torch.testing.assert_close(policy.core_block[0].inner.weight.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_reference_takes_no_gradient_and_leaves_nothing_in_the_graph(pretrained, estimator, monkeypatch):
    dataset, model = pretrained
    parent, _ = read_model(model)
    config = RPTConfig(estimator=estimator, **FEW)
    data = SequentialData.read(dataset)
    policy = load_policy(model, parent, config).train()
    rows, _ = training_rows(policy, parent, data, config)
    loss: Any = objective(policy, parent, rows, config)
    assert not loss.reference.training
    seen = []
    inner = loss.reference.prelude

    def watched(items):
        result = inner(items)
        seen.append(result.requires_grad)
        return result

    monkeypatch.setattr(loss.reference, "prelude", watched)
    value, _ = loss(np.arange(4))
    value.backward()
    assert seen
    assert not any(seen)
    assert all(parameter.grad is None for parameter in loss.reference.parameters())
    assert policy.item_embedding.weight.grad.abs().sum() > 0


def test_without_beta_there_is_no_reference(pretrained):
    dataset, model = pretrained
    parent, _ = read_model(model)
    config = RPTConfig(beta=0.0, **FEW)
    policy = load_policy(model, parent, config)
    rows = pack_by_user(SequentialData.read(dataset).train, policy.max_length)
    loss: Any = objective(policy, parent, rows, config)
    assert loss.reference is None


def test_the_filter_keeps_what_reaches_the_top_and_drops_the_rest(pretrained):
    dataset, model = pretrained
    parent, _ = read_model(model)
    data = SequentialData.read(dataset)
    policy = load_policy(model, parent, RPTConfig())
    whole = pack_by_user(data.train, policy.max_length).n_targets
    sizes = [
        training_rows(policy, parent, data, RPTConfig(filter_top=top))[0].n_targets for top in (1, 5, 30)
    ]
    assert 0 < sizes[0] < sizes[1] < sizes[2] == whole


def test_interrupted_post_training_resumes_bit_for_bit(pretrained, tmp_path, monkeypatch):
    dataset, model = pretrained
    config = RPTConfig(**{**FEW, "num_train_epochs": 3})
    whole = train_rpt(config, dataset=dataset, model=model, output=tmp_path / "whole")
    count = iter(range(100))
    real = training_loop._step

    def step_then_terminate(*arguments):
        real(*arguments)
        if next(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training_loop, "_step", step_then_terminate)
    paths = {"dataset": dataset, "model": model, "output": tmp_path / "m"}
    with pytest.raises(Interrupted):
        train_rpt(config, **paths, checkpoint_root=str(tmp_path / "c"))
    resumed = train_rpt(config, **paths, checkpoint_root=str(tmp_path / "c"))
    assert resumed.fingerprint == whole.fingerprint


def test_post_training_resumes_bit_for_bit_after_sigkill(pretrained, tmp_path, monkeypatch):
    """A child process is killed between two checkpoints; the next attempt ends with the same fingerprint."""
    dataset, model = pretrained
    settings = {**FEW, "num_train_epochs": 10, "patience": 10}
    paths = {"dataset": dataset, "model": model, "output": tmp_path / "m"}
    kill_after_first_checkpoint("rpt", {**settings, **paths}, tmp_path / "c")
    assert not (tmp_path / "m").exists()
    config, steps = RPTConfig(**settings), count_steps(monkeypatch)
    resumed = train_rpt(config, **paths, checkpoint_root=str(tmp_path / "c"))
    left = len(steps)
    whole = train_rpt(config, dataset=dataset, model=model, output=tmp_path / "whole")
    assert left < len(steps) - left
    assert resumed.fingerprint == whole.fingerprint


def test_the_control_goes_on_with_pre_training(pretrained, tmp_path):
    dataset, model = pretrained
    config = RPTConfig(objective="spt", **FEW)
    train_rpt(config, dataset=dataset, model=model, output=tmp_path / "m")
    body = json.loads((tmp_path / "m/model.json").read_text())
    assert body["stage"] == "spt"
    assert body["architecture"]["hidden_dropout"] == 0.5


def test_a_model_of_another_kind_or_dataset_is_refused(pretrained, tmp_path):
    dataset, model = pretrained
    other = write_dataset(tmp_path / "other", n_users=12, seed=5)
    with refused("model.other_dataset"):
        train_rpt(RPTConfig(), dataset=other, model=model, output=tmp_path / "m")
    config = SequentialConfig(hidden_size=8, inner_dim=16, num_train_epochs=1)
    train_sequential(config, dataset=dataset, output=tmp_path / "sasrec")
    with refused("model.other_kind"):
        train_rpt(RPTConfig(), dataset=dataset, model=tmp_path / "sasrec", output=tmp_path / "m")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"estimator": "target_likelihood", "num_generations": 1}, "num_generations"),
        ({"beta": -1.0}, "beta"),
        ({"filter_top": 0}, "filter_top"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, field):
    with refused("config.invalid", f"rpt.{field}" if field != "num_generations" else field):
        RPTConfig(**settings)


def test_model_of_the_schema_before_is_read_and_ranked_with_but_not_trained_on(pretrained, tmp_path):
    """Its configuration has fields that are no more; weights and architecture are as today."""
    dataset, model = pretrained
    flat = {"max_grad_norm": 0.0, "step_view": "earlier"}
    old = older_model(model, tmp_path / "old", 3, lambda info: info["config"].update(flat))
    assert read_model(old)[0].config["max_grad_norm"] == 0.0
    data = Dataset(dataset)
    histories = data.split("valid").histories()
    catalogue = Catalogue.from_dataset(data)
    ranked = [load_recommender(where, catalogue).rank(histories, 5).item_ids for where in (old, model)]
    assert np.array_equal(*ranked)
    with refused("manifest.other_version", "max_grad_norm, step_view", "schema_version 4"):
        train_rpt(RPTConfig(**FEW), dataset=dataset, model=old, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
