"""Constrained decoding against transformers' generation, with and without cache; the price of its parts.

The reference is ``generate(num_beams=10, prefix_allowed_tokens_fn=…)`` of the same backbone: with cache, and
without (the published code's way; that code also reads the prompt a second time for its latent, which is
not counted here). Lists and scores must agree before anything is timed.

    python -m benchmarks.decoding [--only NAME] [--device cuda]
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.decoding_parts import latent_overhead, mask_share, read_ahead, scaling
from benchmarks.decoding_rivals import against_transformers


def run(only: str | None = None, device: str = "cpu") -> None:
    """Measure everything of this module, or one benchmark, and record it."""
    torch.set_num_threads(1)
    pairs = ("decode_vs_transformers_cached", "decode_vs_authors")
    if only is None or only in pairs:
        against_transformers(device, pairs if only is None else (only,))
    for name, work in (
        ("trie_mask_share_of_step", mask_share),
        ("latent_token_latency_overhead", latent_overhead),
        ("decode_catalogue_scaling", scaling),
        ("decode_read_ahead_vs_steps", read_ahead),
    ):
        if only in (None, name):
            work(device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    run(arguments.only, arguments.device)
