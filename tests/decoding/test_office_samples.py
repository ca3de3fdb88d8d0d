"""Real Office samples: the same ten titles and scores as transformers' constrained beam search."""

import pytest
import torch
from transformers import GenerationConfig

from latentrec.catalog import Catalogue
from latentrec.data import DataPrepConfig, Dataset, prepare
from latentrec.decoding import DecodingOptions
from latentrec.decoding.title_recommender import TitleRecommender, title_sequences
from latentrec.models.latentr3 import LatentR3Model
from latentrec.models.presets import build_preset
from latentrec.prompts import NextItemPrompt
from tests.fixtures.slow_figures import record_figure

BEAMS = 10


@pytest.fixture(scope="module")
def office(shared_data, tmp_path_factory):
    """A tiny backbone that was shown Office titles for a moment, and the real test samples."""
    folder = shared_data / "amazon2018" / "Office_Products"
    config = DataPrepConfig(
        reviews=(str(folder / "Office_Products.json.gz"),),
        metadata=(str(folder / "meta_Office_Products.json.gz"),),
        k_core=1,
    )
    prepare(config, tmp_path_factory.mktemp("office") / "dataset")
    data = Dataset(tmp_path_factory.getbasetemp() / "office0" / "dataset")
    catalogue = Catalogue.from_dataset(data)
    backbone, tokenizer = build_preset("tiny", catalogue.unique_titles, seed=0)
    prompt = NextItemPrompt(tokenizer)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(25):
            chosen = torch.randint(0, catalogue.n_titles, (16,), generator=generator).tolist()
            rows = [
                torch.tensor(prompt.encode_target(catalogue.unique_titles[title])[:24]) for title in chosen
            ]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=prompt.pad_id)
            loss = backbone(input_ids=ids, labels=ids.masked_fill(ids == prompt.pad_id, -100)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model = LatentR3Model(backbone.eval(), n_latents=0).eval()
    options = DecodingOptions(decoding="bigrec")
    return TitleRecommender(model, prompt, catalogue, options=options), data.split("test")


def largest_difference(office, n_samples):
    """Compare the first samples one by one; returns the largest difference of scores."""
    recommender, samples = office
    prompt, model = recommender.prompt, recommender.model
    sequences = title_sequences(recommender.catalogue, prompt)
    allowed: dict[tuple[int, ...], set[int]] = {}
    for row in sequences:
        for place in range(len(row)):
            allowed.setdefault(tuple(row[:place]), set()).add(row[place])
    config = GenerationConfig(
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        max_new_tokens=recommender.trie.trie.depth,
        length_penalty=1.0,
        do_sample=False,
        eos_token_id=prompt.eos_id,
        pad_token_id=prompt.pad_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    prompts = [recommender._prompt_of(samples.history(index)) for index in range(n_samples)]
    found = recommender.search(prompts, [samples.history(index) for index in range(n_samples)])
    worst = 0.0
    for row, ids in enumerate(prompts):

        def following(_, tokens, length=len(ids)):
            return sorted(allowed.get(tuple(tokens[length:].tolist()), {prompt.eos_id}))

        output = model.backbone.model.generate(
            torch.tensor([ids]), generation_config=config, prefix_allowed_tokens_fn=following
        )
        scores = found.scores[row]
        worst = max(worst, float((scores - output.sequences_scores).abs().max()))
        for place, tokens in enumerate(output.sequences[:, len(ids) :].tolist()):
            leaf = int(found.leaves[row, place])
            ours = sequences[recommender.trie.trie.sequences_of_leaf(leaf)[0]]
            tied = int(((scores - scores[place]).abs() < 1e-6).sum()) > 1
            assert tokens[: len(ours)] == ours or tied, f"sample {row}, place {place}"
    return worst


def test_ten_beams_equal_transformers_on_real_samples(office):
    assert largest_difference(office, 8) < 1e-5


@pytest.mark.slow
def test_ten_beams_equal_transformers_on_two_hundred_real_samples(office):
    worst = largest_difference(office, 200)
    assert worst < 1e-5
    record_figure(
        "constrained beam search against transformers, 200 Office samples, 10 beams",
        f"same titles in the same order, scores within {worst:.1e}",
    )
