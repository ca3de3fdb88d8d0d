"""The card's two ceilings, as measured: bf16 matrix products and a device-to-device copy."""

from __future__ import annotations

import torch

from benchmarks.gpu.context import Context


def run(context: Context) -> None:
    """Measure both."""
    n = 256 if context.toy else 8192
    left, right = (torch.randn(n, n, device=context.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = context.seconds(lambda: left @ right, repeats=10, warm_up=3)
    source = torch.randn(2**20 if context.toy else 2**30, device=context.device)
    target = torch.empty_like(source)
    copied = context.seconds(lambda: target.copy_(source), repeats=5)
    context.record(
        "ceilings",
        "card",
        bf16_matmul_tflops=2 * n**3 / seconds / 1e12,
        copy_tb_per_s=2 * source.numel() * 4 / copied / 1e12,
        datasheet_tflops=context.peak_flops / 1e12,
    )
