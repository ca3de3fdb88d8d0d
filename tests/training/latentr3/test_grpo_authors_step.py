"""One GRPO step of the paper profile is the step that the authors' own trainer takes.

``shared/reference/latentr3`` (beside the checkout, or ``LATENTR3_REFERENCE``) holds weights, prompts, noise,
advantages, loss and gradients made by the authors' code; where it is absent the plainly written step of
``authors_grpo_step`` stands in for it, which the reference, where present, is compared with as well.
"""

import json
import os
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from latentrec.models.latentr3 import LatentR3Model
from latentrec.training.latentr3.grpo_config import LatentGRPOConfig
from latentrec.training.latentr3.grpo_trainer import LatentGRPOTrainer

REFERENCE = Path(
    os.environ.get("LATENTR3_REFERENCE", Path(__file__).parents[4] / "shared/reference/latentr3")
)
RATT = [f"{name}_proj.{kind}" for name in "qkv" for kind in ("weight", "bias")]


class Tokens:
    """Prompts and answers that are tokens already; any token may follow."""

    allowed_tokens = None

    def __init__(self, prompts, answers):
        self.prompts, self.answers = prompts, answers
        self.prompt = SimpleNamespace(pad_id=0)
        self.samples = SimpleNamespace(targets=np.zeros(len(prompts), np.int64))

    def prompt_ids(self, index):
        return self.prompts[index]

    def answer_ids(self, index):
        return self.answers[index]


def unpadded(ids):
    return [[token for token in row if token >= 0] for row in ids.tolist()]


def our_step(model, prompts, answers, noise_PKD, **options):
    """Loss, gradients by name, and advantages of one optimizer step of :class:`LatentGRPOTrainer`."""
    copies = noise_PKD.shape[1]
    config = LatentGRPOConfig(
        profile="paper",
        num_generations=copies,
        batch_size=copies * len(prompts),
        diagnostics_every=0,
        learning_rate=1e-4,
        **options,
    )
    model.requires_grad_(False)
    model.latent_ratt.requires_grad_(True)
    trainer = object.__new__(LatentGRPOTrainer)
    trainer._latent_config, trainer._latentr3, trainer._tokens = config, model, Tokens(prompts, answers)
    trainer._throughput = SimpleNamespace(tokens=0)
    trainer._reference = trainer._cosines = trainer._ranker = None
    trainer._metrics = {"train": defaultdict(list)}
    trainer.args = SimpleNamespace(device=torch.device("cpu"))
    trainer.accelerator = Accelerator(cpu=True)
    trainer.state = SimpleNamespace(global_step=0)
    sigma = torch.full((len(prompts), 1), float(config.noise_std))
    trainer._noise = lambda state, indices: (noise_PKD[:, :, None], sigma)
    rows = [{"prompt": index} for index in range(len(prompts)) for _ in range(copies)]
    kept = trainer._make_copies(rows)
    loss = trainer.rollout_loss(lambda task: task(model), kept)
    model.zero_grad()
    loss.backward()
    gradients = {name: model.latent_ratt.get_parameter(name).grad.clone() for name in RATT}
    return loss.detach(), gradients, kept["advantages"]


def authors_grpo_step(model, prompts, answers, noise_PKD, prompts_together=2):
    """The published step, written plainly: every copy is a full pass of its own over [x, r + ε, y].

    Micro-batch: one prompt with its K copies, token mean of −A · ρ with ρ = exp(lp − sg(lp)); the optimizer
    sees the mean over micro-batches. The advantage's batch is the prompts that two processes gather.
    """
    backbone, ratt = model.backbone.model, model.latent_ratt
    embed = backbone.get_input_embeddings()
    log_probs, rewards = [], []
    for prompt, answer, noise_KD in zip(prompts, answers, noise_PKD, strict=True):
        ids, target = torch.tensor([prompt]), torch.tensor(answer)
        hidden = backbone(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        size, length = hidden.shape[-1], len(prompt)
        frequencies = 1000.0 ** (-torch.arange(0, size, 2).float() / size)
        angles = torch.arange(length)[:, None].float() * torch.cat([frequencies, frequencies])

        def rotated(x, angles=angles):
            first, second = x.chunk(2, dim=-1)
            return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()

        query, key, value = rotated(ratt.q_proj(hidden)), rotated(ratt.k_proj(hidden)), ratt.v_proj(hidden)
        weights = torch.softmax(query[:, -1:] @ key.transpose(1, 2) / size**0.5, dim=-1)
        latent = (weights @ value)[0]
        of_copies = []
        for noise_D in noise_KD:
            embeds = torch.cat([embed(ids), (latent + noise_D)[None], embed(target[None])], dim=1)
            logits = backbone(inputs_embeds=embeds).logits[0, length : length + len(answer)]
            of_copies.append(torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0])
        log_probs.append(torch.stack(of_copies))
        rewards.append(-torch.exp(-log_probs[-1].detach().mean(dim=1)))
    advantages = []
    for begin in range(0, len(prompts), prompts_together):
        together = torch.stack(rewards[begin : begin + prompts_together])
        centered = together - together[:, 0].mean()
        advantages.append(centered / (centered.norm() + 1e-6))
    advantages_PK = torch.cat(advantages)
    losses = [
        -(torch.exp(lp - lp.detach()) * advantage_K[:, None]).mean()
        for lp, advantage_K in zip(log_probs, advantages_PK, strict=True)
    ]
    loss = torch.stack(losses).mean()
    gradients = torch.autograd.grad(loss, [ratt.get_parameter(name) for name in RATT])
    return loss.detach(), dict(zip(RATT, gradients, strict=True)), advantages_PK


def qwen(**sizes):
    return Qwen2ForCausalLM(Qwen2Config(**sizes, attn_implementation="sdpa")).eval()  # type: ignore[call-arg]


@pytest.fixture
def small():
    """Model, prompts and answers of unlike length, and noise, all made here."""
    torch.manual_seed(0)
    model = LatentR3Model(
        qwen(
            vocab_size=61,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    generator = np.random.default_rng(0)
    prompts = [generator.integers(1, 61, size).tolist() for size in (9, 4, 14, 6, 11)]
    answers = [generator.integers(1, 61, size).tolist() for size in (3, 12, 5, 2, 7)]
    noise = torch.randn(5, 4, 32)
    noise[:, 0] = 0
    return model, prompts, answers, noise


def agree(ours, theirs):
    loss, gradients, advantages = ours
    expected_loss, expected, expected_advantages = theirs
    assert abs(float(loss) - float(expected_loss)) <= 1e-6
    assert torch.allclose(advantages, expected_advantages, atol=1e-5)
    both = [torch.cat([side[name].flatten() for name in RATT]) for side in (gradients, expected)]
    assert float((both[0] - both[1]).norm() / both[1].norm()) <= 1e-5


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_paper_step_is_the_plainly_written_step(small, count):
    model, prompts, answers, noise = small
    case = model, prompts[:count], answers[:count], noise[:count]
    theirs = authors_grpo_step(*case)
    agree(our_step(*case), theirs)


def test_long_titles_weigh_no_more_than_short_ones(small):
    """Doubling every token of one prompt's answer must not double its share of the loss."""
    model, prompts, answers, noise = small
    whole, _, advantages = our_step(model, prompts[:2], answers[:2], noise[:2])
    alone = [
        -float((advantages[i]).mean())
        for i in range(2)  # ρ = 1: each prompt's token mean is −mean A
    ]
    assert float(whole) == pytest.approx(sum(alone) / 2, abs=1e-6)


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("step", [our_step, authors_grpo_step])
def test_paper_step_is_the_one_of_the_authors_code(step, count):
    path = REFERENCE / f"grpo_step_{count}_prompts.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is absent: the authors' figures are not part of this repository")
    tensors, facts = load_file(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    sizes = {key: value for key, value in facts.items() if key not in ("copies", "sigma", "loss")}
    backbone = qwen(**sizes)
    missing = backbone.load_state_dict(
        {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")},
        strict=False,
    )
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    model = LatentR3Model(backbone)
    model.latent_ratt.load_state_dict({name: tensors[f"latent_ratt.{name}"] for name in RATT})
    ours = step(model, unpadded(tensors["prompt_ids"]), unpadded(tensors["answer_ids"]), tensors["noise_PKD"])
    expected = {name: tensors[f"grad.latent_ratt.{name}"] for name in RATT}
    agree(ours, (tensors["loss"], expected, tensors["advantages_PK"]))
