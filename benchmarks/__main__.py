"""``make bench``: run every benchmark, or one (``BENCH=name``), and rewrite the results.

A benchmark module offers ``run()``, which measures, and either records through
:func:`benchmarks.harness.record` or returns entries by name.
"""

from __future__ import annotations

import argparse
import importlib

from benchmarks.harness import RESULTS_MD, record_entry

BENCHMARKS = {
    "data_prep_vs_python": "data_prep",
    "data_prep_memory_vs_python": "data_prep",
    "sft_step_vs_authors": "training",
    "grpo_step_vs_authors": "training",
    "grpo_memory_vs_authors": "training",
    "sft_packed_epoch_vs_unpacked": "training",
    "sft_packed_epoch_vs_unpadded": "training",
    "decode_vs_transformers_cached": "decoding",
    "decode_vs_authors": "decoding",
    "trie_mask_share_of_step": "decoding",
    "latent_token_latency_overhead": "decoding",
    "decode_catalogue_scaling": "decoding",
    "decode_read_ahead_vs_steps": "decoding",
    "lares_epoch_vs_separate": "lares",
    "sampled_softmax_step_vs_full": "sampled_softmax",
    "pretrained_sft_single_rows_vs_transformers": "pretrained_training",
    "pretrained_sft_packed_vs_transformers": "pretrained_training",
    "upload_vs_plain_copy": "upload",
    "serving_throughput": "serving",
    "serving_workers": "serving_workers",
    "pretrained_serving": "pretrained_serving",
    "batch_scoring_processes": "batch_scoring",
    "batch_scoring_memory": "batch_scoring",
}
"""Benchmark → module of this folder that measures it."""


def main() -> None:
    """Run the modules behind the names asked for, each once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="NAME", choices=sorted(BENCHMARKS), help="one benchmark")
    only = parser.parse_args().only
    for module in dict.fromkeys(BENCHMARKS[name] for name in ([only] if only else BENCHMARKS)):
        entries = importlib.import_module(f"benchmarks.{module}").run()
        for name, entry in (entries or {}).items():
            record_entry(name, entry)
    print(f"written: {RESULTS_MD}")


main()
