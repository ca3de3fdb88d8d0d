"""What the decoding benchmarks stand on: titles, a small model trained briefly, prompts, clocks."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentrec.decoding.beam_search import BeamResult, ConstrainedBeamSearch
from latentrec.decoding.trie_tensors import TrieTensors
from latentrec.models.latentr3 import LatentR3Model
from latentrec.models.presets import train_tokenizer
from latentrec.prompts import NextItemPrompt

USERS, BEAMS = 16, 10
SMALL = {"d": 128, "layers": 2, "dtype": "fp32", "threads": 1}
CLOCK = "on a CPU, processor seconds of the one thread: the machine was shared"
CDS = Path(__file__).resolve().parents[2] / "shared/data/amazon2018/CDs_and_Vinyl/published/info.txt.gz"
TEXT = (
    "live greatest hits best of the love songs symphony no concerto in major minor blue night road moon "
    "dance vol deluxe edition remastered christmas sessions collection gold essential world heart fire "
    "river city black white dream summer winter soul jazz rock folk piano guitar orchestra mass requiem"
)
WORDS = TEXT.split()


def titles_of_cds() -> tuple[list[str], str]:
    """The distinct titles of CDs and Vinyl, and where they are from; generated ones where it is absent."""
    if not CDS.exists():
        return generated_titles(5377), "5,377 generated titles (the real ones are not on this machine)"
    lines = gzip.decompress(CDS.read_bytes()).decode().splitlines()
    titles = list(dict.fromkeys(title for line in lines if (title := line.rpartition("\t")[0])))
    return titles, f"{len(titles):,} titles of CDs and Vinyl"


def generated_titles(n: int, seed: int = 0) -> list[str]:
    """Distinct titles of the shape of real ones: artists, repeated words, series, long tails."""
    rng = np.random.default_rng(seed)
    artists = [" ".join(rng.choice(WORDS, 2)).title() for _ in range(max(50, n // 8))]
    found: dict[str, None] = {}
    while len(found) < n:
        title = " ".join(rng.choice(WORDS, int(rng.integers(1, 6)))).capitalize()
        if rng.random() < 0.5:
            title = f"{artists[int(rng.integers(len(artists)))]}: {title}"
        if rng.random() < 0.3:
            title += f" (Vol. {int(rng.integers(1, 40))})"
        found[title] = None
    return list(found)


def small_model(
    titles: list[str],
    *,
    vocabulary: int = 4096,
    rows: int | None = None,
    n_latents: int = 0,
    steps: int = 60,
) -> tuple[LatentR3Model, NextItemPrompt]:
    """d = 128, 2 layers, from scratch; taught the titles for a few steps, so that beams behave as in use.

    Args:
        titles: of the catalogue; the tokenizer learns from them.
        vocabulary: most tokens of the tokenizer.
        rows: rows of the embedding, where it is to be larger than the tokenizer (150 thousand).
        n_latents: N.
        steps: training steps of 32 titles.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    tokenizer = train_tokenizer([f'"{title}"\n' for title in titles], vocabulary)
    config: Any = Qwen2Config(
        vocab_size=rows or len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=384,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    config._attn_implementation = "sdpa"
    model = LatentR3Model(Qwen2ForCausalLM(config), n_latents=n_latents)
    prompt = NextItemPrompt(tokenizer)
    optimizer = torch.optim.AdamW(model.backbone.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    with torch.enable_grad():
        for _ in range(steps):
            answers = [prompt.encode_target(titles[index]) for index in rng.choice(len(titles), 32)]
            ids, mask = padded([prompt.response_ids + answer for answer in answers], prompt.pad_id)
            labels = ids.masked_fill(mask == 0, -100)
            labels[:, : len(prompt.response_ids)] = -100
            loss = model.backbone.model(input_ids=ids, attention_mask=mask, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), prompt


def random_prompts(prompt: NextItemPrompt, titles: list[str], users: int, seed: int = 1) -> list[list[int]]:
    """Prompts of ten random titles each."""
    rng = np.random.default_rng(seed)
    return [prompt.encode_history([titles[i] for i in rng.choice(len(titles), 10)]) for _ in range(users)]


def padded(prompts: list[list[int]], pad: int, *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, (B, T)."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad)
    mask = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, tokens in enumerate(prompts):
        at = slice(length - len(tokens), length) if left else slice(0, len(tokens))
        ids[row, at], mask[row, at] = torch.tensor(tokens), 1
    return ids, mask


def ours(
    model: Any, trie: TrieTensors, ids: torch.Tensor, mask: torch.Tensor, penalty: float = 1.0
) -> BeamResult:
    """Prefill, latents, search."""
    search = ConstrainedBeamSearch(trie, beam_width=BEAMS, length_penalty=penalty)
    return search.search(model, model.start_decoding(ids, mask))


def timed(work: Any, device: str) -> float:
    """Seconds of one call, by the device's clock."""
    clock = clock_of(device)
    begin = clock()
    done(work(), device)
    return clock() - begin


def clock_of(device: str) -> Callable[[], float]:
    """Processor seconds of this (single-threaded) process on a CPU, so that neighbors do not count."""
    return time.process_time if device == "cpu" else time.perf_counter


def done(result: Any, device: str) -> Any:
    """Wait until the device has made ``result``; returns it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return result


def named(name: str, device: str) -> str:
    """Name of an entry: figures of a GPU stand beside those of a CPU."""
    return name if device == "cpu" else f"{name}_gpu"
