"""LatentR³'s training steps in the formulation of the authors' published code, written plainly.

Stage 1 encodes the prompt to find the latent, then the whole sequence ``[x, r, y]`` again, with logits at
every position. Stage 2 repeats each prompt K times and, for each copy, encodes the prompt for the latent and
the whole sequence for the answer, in each of its passes: the reward, the old policy, the reference policy,
and the loss: 4 × K prompt encodings, and as many whole sequences.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from latentrec.models.latentr3 import LatentR3Model


def latent_of(model: LatentR3Model, prompt_BT: Tensor) -> Tensor:
    """Encode the whole prompt and apply LatentRATT at its last position, (B, 1, d)."""
    ratt = model.latent_ratt
    assert ratt is not None
    lm = model.backbone.model
    hidden_BTD = lm.get_decoder()(input_ids=prompt_BT, use_cache=False).last_hidden_state
    positions_BT = torch.arange(prompt_BT.shape[1], device=prompt_BT.device).expand_as(prompt_BT)
    query_B1D = rotated(ratt.q_proj(hidden_BTD[:, -1:]), positions_BT[:, -1:])
    keys_BTD = rotated(ratt.k_proj(hidden_BTD), positions_BT)
    scores_B1T = query_B1D @ keys_BTD.transpose(1, 2) * hidden_BTD.shape[-1] ** -0.5
    return torch.softmax(scores_B1T, dim=-1) @ ratt.v_proj(hidden_BTD)


def rotated(x_BTD: Tensor, positions_BT: Tensor) -> Tensor:
    """Rotary embedding, base 1000, over the whole last dimension."""
    half = x_BTD.shape[-1] // 2
    angles = positions_BT[..., None] * 1000.0 ** (-torch.arange(half, device=x_BTD.device) / half)
    cos, sin = angles.cos(), angles.sin()
    first, second = x_BTD[..., :half], x_BTD[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def sequence_log_probs(
    model: LatentR3Model,
    prompt_BT: Tensor,
    latent_B1D: Tensor,
    answer_BL: Tensor,
    *,
    all_positions: bool = True,
) -> Tensor:
    """Encode ``[x, r, y]`` whole; logits at every position, or at the answer's only; (B, L)."""
    lm = model.backbone.model
    embed = lm.get_input_embeddings()
    whole = torch.cat([embed(prompt_BT), latent_B1D, embed(answer_BL)], dim=1)
    length = answer_BL.shape[1]
    if all_positions:
        logits = lm(inputs_embeds=whole, use_cache=False).logits.float()
        log_probs = F.log_softmax(logits, dim=-1)[:, -length - 1 : -1]
    else:
        hidden = lm.get_decoder()(inputs_embeds=whole, use_cache=False).last_hidden_state
        log_probs = F.log_softmax(lm.get_output_embeddings()(hidden[:, -length - 1 : -1]).float(), dim=-1)
    return log_probs.gather(2, answer_BL[..., None])[..., 0]


def sft_loss(
    model: LatentR3Model, prompt_BT: Tensor, answer_BL: Tensor, *, all_positions: bool = True
) -> Tensor:
    """Stage 1: two encodings of the prompt."""
    latent = latent_of(model, prompt_BT)
    return -sequence_log_probs(model, prompt_BT, latent, answer_BL, all_positions=all_positions).mean()


def grpo_loss(
    model: LatentR3Model,
    reference: LatentR3Model,
    prompt_PT: Tensor,
    answer_PL: Tensor,
    noise_PKD: Tensor,
) -> Tensor:
    """Stage 2: rewards, old and reference probabilities without gradient, then the loss; one step."""
    copies = noise_PKD.shape[1]
    prompts = prompt_PT.repeat_interleave(copies, dim=0)
    answers = answer_PL.repeat_interleave(copies, dim=0)
    noise = noise_PKD.flatten(0, 1)[:, None]

    def log_probs(policy: LatentR3Model) -> Tensor:
        return sequence_log_probs(policy, prompts, latent_of(policy, prompts) + noise, answers)

    with torch.no_grad():
        rewards = -torch.exp(-log_probs(model).mean(dim=1))
        old = log_probs(model)
        log_probs(reference)
    rewards_PK = rewards.view(-1, copies)
    centered = rewards_PK - rewards_PK[:, 0].mean()
    advantage = (centered / (centered.norm() + 1e-6)).flatten()[:, None]
    ratio = torch.exp(log_probs(model) - old)
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage).mean()
