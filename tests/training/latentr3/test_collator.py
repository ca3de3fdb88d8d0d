"""Rows that hold all prefixes of a user give what the prefixes give apart; orders of samples are fair."""

import numpy as np
import pytest
import torch

from latentrec.data import Dataset
from latentrec.models.latentr3 import IGNORED, LatentR3Model, load_backbone
from latentrec.prompts import NextItemPrompt, title_line
from latentrec.training.common.batching import BLANK, LengthGroupedBatchSampler, LengthGroupedPromptSampler
from latentrec.training.latentr3.collator import (
    NextItemTokens,
    TokenRow,
    answer_log_probs,
    packed_batch,
    plain_batch,
)
from tests.fixtures.sequential_data import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Dataset(write_dataset(tmp_path_factory.mktemp("d") / "d", n_users=25, n_items=20, length=(3, 16)))


def make_tokens(data, **options):
    texts = [title_line(title) for title in data.titles]
    backbone, tokenizer = load_backbone("micro", texts=texts, seed=0)
    prompt = NextItemPrompt(tokenizer, **options)
    return backbone, NextItemTokens(data.split("train"), data.titles, prompt)


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
@pytest.mark.parametrize("n_latents", [0, 1, 3])
def test_packed_rows_equal_separate_rows(data, n_latents, family):
    backbone, tokens = make_tokens(data)
    if family == "gemma3":  # layers with a sliding window, shorter than the prompts
        from tests.models.latentr3.test_equivalence import tiny_backbone

        backbone = tiny_backbone("gemma3")
        backbone.resize_token_embeddings(len(tokens.prompt.tokenizer))
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    torch.manual_seed(1)
    model = LatentR3Model(backbone, n_latents=n_latents)
    rows = tokens.packed_rows()[:8]
    assert max(len(row.samples) for row in rows) > 4
    order = [index for row in rows for index in row.samples]

    def loss_and_gradients(batch):
        model.zero_grad()
        log_probs = answer_log_probs(model, batch)
        counted = batch["labels"] != IGNORED
        loss = -log_probs.sum() / counted.sum()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        by_answer = log_probs.sum(dim=-1)[counted.any(dim=-1)]
        return float(loss), torch.cat([g.flatten() for g in gradients]), by_answer

    together, gradients, by_answer = loss_and_gradients(packed_batch(tokens, rows))
    apart, expected, expected_by_answer = loss_and_gradients(plain_batch(tokens, order))
    assert abs(together - apart) <= 1e-5
    assert float((gradients - expected).norm() / expected.norm()) <= 1e-4
    assert torch.allclose(by_answer, expected_by_answer, atol=1e-4)


def test_every_sample_is_in_one_packed_row_with_its_own_history(data):
    _, tokens = make_tokens(data)
    rows = tokens.packed_rows()
    assert sorted(index for row in rows for index in row.samples) == list(range(len(tokens)))
    assert len(rows) < len(tokens) / 2
    samples = tokens.samples
    for row in rows:
        longest = samples.history(row.samples[-1])
        for index in row.samples:
            history = samples.history(index)
            assert (longest[: len(history)] == history).all()


def test_cut_histories_are_not_packed(data):
    _, tokens = make_tokens(data, max_history=3)
    for row in tokens.packed_rows():
        for index in row.samples[1:]:
            assert len(tokens.samples.history(index)) <= 3


def test_lengths_are_those_of_the_tokens(data):
    for options in ({}, {"max_history": 4}, {"max_prompt_tokens": 60, "max_title_tokens": 20}):
        _, tokens = make_tokens(data, **options)
        for index in range(0, len(tokens), 7):
            assert tokens.prompt_lengths[index] >= len(tokens.prompt_ids(index))
            if options.get("max_prompt_tokens") is None:
                assert tokens.prompt_lengths[index] == len(tokens.prompt_ids(index))
            assert tokens.answer_lengths[index] == len(tokens.answer_ids(index))
    row = next(row for row in tokens.packed_rows() if len(row.samples) > 2)
    assert packed_batch(tokens, [row])["input_ids"].shape[1] == tokens.row_length(row)


def batches(lengths, micro_batches=1, seed=3, batch_size=12):
    return LengthGroupedBatchSampler(
        lengths, [1] * len(lengths), batch_size=batch_size, micro_batches=micro_batches, seed=seed
    )


def test_each_epoch_sees_every_row_once():
    lengths = np.random.default_rng(0).integers(5, 90, 251)
    order = batches(lengths)
    for epoch in range(3):
        order.set_epoch(epoch)
        assert sorted(index for batch in order for index in batch) == list(range(251))
    sizes = {len(batch) for batch in order}
    assert sizes <= {11, 12}


def test_optimizer_batches_do_not_depend_on_how_they_are_dealt_out():
    lengths = np.random.default_rng(0).integers(5, 90, 100)
    whole = list(batches(lengths))
    parts = list(batches(lengths, micro_batches=4))
    assert len(parts) == 4 * len(whole)
    for i, batch in enumerate(whole):
        dealt = [index for part in parts[4 * i : 4 * i + 4] for index in part if index != BLANK]
        assert sorted(dealt) == sorted(batch)


def test_batches_hold_rows_of_like_length():
    lengths = np.random.default_rng(0).integers(5, 500, 2000)
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches(lengths)])
    assert spread < 0.2 * np.ptp(lengths)


def test_epochs_and_seeds_differ_and_repeat():
    lengths = list(range(60))
    first, second = batches(lengths), batches(lengths)
    assert list(first) == list(second)
    assert list(batches(lengths, seed=4)) != list(first)
    second.set_epoch(1)
    assert list(second) != list(first)


def test_prompts_are_repeated_for_their_copies_and_iterations():
    order = LengthGroupedPromptSampler(
        range(10), prompts_per_batch=3, copies=2, repeats=2, iterations=2, seed=0
    )
    seen = list(order)
    assert len(seen) == len(order) == 3 * 3 * 2 * 2
    assert order.steps_per_epoch == 6
    for batch in range(3):
        block = seen[batch * 12 : (batch + 1) * 12]
        assert block[:6] == block[6:]
        assert block[0:6:2] == block[1:6:2]
        assert len(set(block)) == 3


def test_rows_are_not_made_twice():
    assert TokenRow((1, 2)) == TokenRow((1, 2))
