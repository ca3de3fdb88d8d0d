"""Tiny random title models and catalogues."""

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from latentrec.models.latentr3 import LatentR3Model

EOS = 1


def tiny_model(vocabulary=32, n_latents=1, seed=0, scale=1.0, hidden=16, layers=2):
    """A random LatentR³; ``scale`` sharpens its distributions."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        eos_token_id=EOS,
        pad_token_id=0,
        bos_token_id=None,
    )
    config._attn_implementation = "sdpa"
    backbone = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
        backbone.lm_head.weight.mul_(scale)
    model = LatentR3Model(backbone, n_latents=n_latents)
    return model.eval()


def started(model, prompts):
    """Prompts of different lengths, right-padded, read and thought about."""
    length = max(map(len, prompts))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in prompts])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in prompts])
    return model.start_decoding(ids, mask)


def plain_scores(model, prompt, sequences, *, among_themselves=False):
    """Σ log p of each sequence after a prompt, by plain passes of the backbone over everything.

    ``among_themselves``: a token's probability is taken among those that follow the same beginning in any of
    the sequences.
    """
    latents = started(model, [prompt]).latents_BND
    longest = max(map(len, sequences))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in sequences])
    embed = model.backbone.model.get_input_embeddings()
    n = len(sequences)
    parts = [embed(torch.tensor([prompt] * n)), latents.expand(n, -1, -1), embed(padded)]
    logits = model.backbone.model(inputs_embeds=torch.cat(parts, dim=1)).logits.float()
    first = len(prompt) + latents.shape[1] - 1
    logits = logits[:, first : first + longest]
    if among_themselves:
        for i, row in enumerate(sequences):
            for t in range(len(row)):
                follow = sorted({other[t] for other in sequences if other[:t] == row[:t] and len(other) > t})
                others = [token for token in range(logits.shape[-1]) if token not in follow]
                logits[i, t, others] = -torch.inf
    log_probs = logits.log_softmax(dim=-1).gather(2, padded[..., None])[..., 0]
    return [float(log_probs[i, : len(row)].sum()) for i, row in enumerate(sequences)]
