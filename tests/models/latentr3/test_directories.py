"""Backbones from presets and directories, model directories saved and loaded, and what is refused."""

import json

import pytest
import torch

from latentrec.models import ModelInfo
from latentrec.models.latentr3 import (
    IGNORED,
    LatentR3Model,
    architecture,
    load_backbone,
    load_latentr3,
    load_pretrained,
    save_latentr3,
)
from latentrec.prompts import NextItemPrompt
from latentrec.storage import ArtifactWriter
from tests.errors import refused

TEXTS = [f'"Title of item {number}"\n' for number in range(30)]


def write_model(directory, n_latents=1, system="latentr3"):
    backbone, tokenizer = load_backbone("micro", texts=TEXTS, seed=1)
    torch.manual_seed(2)
    model = LatentR3Model(backbone, n_latents=n_latents).eval()
    prompt = NextItemPrompt(tokenizer, max_history=4)
    with ArtifactWriter(directory, "model", {}) as artifact:
        save_latentr3(model, tokenizer, artifact.path)
        ModelInfo(
            system=system,
            stage="sft",
            config={},
            architecture=architecture(model, prompt),
            metrics={},
            dataset_fingerprint="d",
            parent=None,
            train_end=0,
        ).write(artifact.path)
    return model, prompt


@pytest.mark.parametrize("n_latents", [0, 1, 2])
def test_saved_model_loads_to_the_same_outputs(tmp_path, n_latents):
    model, prompt = write_model(tmp_path / "model", n_latents)
    loaded = load_latentr3(tmp_path / "model")
    assert loaded.prompt.settings() == prompt.settings()
    ids = torch.tensor([prompt.encode_history(["Title of item 3", "Title of item 4"])])
    assert ids.tolist() == [loaded.prompt.encode_history(["Title of item 3", "Title of item 4"])]
    before, after = model.start_decoding(ids), loaded.model.start_decoding(ids)
    assert torch.allclose(before.logits_BWV, after.logits_BWV, atol=1e-6)
    assert torch.allclose(before.latents_BND, after.latents_BND, atol=1e-6)


def test_backbone_of_a_model_directory_is_a_backbone(tmp_path):
    model, _ = write_model(tmp_path / "model")
    backbone, tokenizer = load_backbone(str(tmp_path / "model" / "backbone"), texts=(), seed=0)
    for (name, a), (_, b) in zip(
        model.backbone.model.named_parameters(), backbone.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name
    assert tokenizer.eos_token == "<|endoftext|>"


def test_preset_is_the_same_for_the_same_seed():
    first, _ = load_backbone("micro", texts=TEXTS, seed=1)
    state = torch.random.get_rng_state()
    second, _ = load_backbone("micro", texts=TEXTS, seed=1)
    other, _ = load_backbone("micro", texts=TEXTS, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    weight = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.state_dict()[weight], second.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


@pytest.mark.parametrize("source", ["no-such-preset", "/no/such/place", "./here"])
def test_backbone_that_is_nowhere_is_refused(source):
    with refused("backbone.unknown_name", f"'{source}'"):
        load_backbone(source, texts=TEXTS, seed=0)


def test_directory_with_pickled_weights_is_refused(tmp_path):
    write_model(tmp_path / "model")
    backbone = tmp_path / "model" / "backbone"
    (backbone / "model.safetensors").rename(backbone / "pytorch_model.bin")
    with refused("backbone.cannot_load"):
        load_pretrained(backbone)


def test_directory_that_brings_code_is_refused(tmp_path):
    write_model(tmp_path / "model")
    config = tmp_path / "model" / "backbone" / "config.json"
    body = json.loads(config.read_text())
    marker = tmp_path / "executed"
    body |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    config.write_text(json.dumps(body))
    (config.parent / "own.py").write_text(f"open({str(marker)!r}, 'w')")
    with refused("backbone.cannot_load"):
        load_pretrained(config.parent)
    assert not marker.exists()


def test_backbone_without_eos_token_is_refused(tmp_path):
    write_model(tmp_path / "model")
    path = tmp_path / "model" / "backbone" / "tokenizer_config.json"
    body = json.loads(path.read_text())
    body.pop("eos_token")
    path.write_text(json.dumps(body))
    with refused("backbone.no_end_token", "eos_token"):
        load_pretrained(path.parent)


def test_model_of_another_system_is_refused(tmp_path):
    write_model(tmp_path / "model", system="sasrec")
    with refused("model.other_kind", "latentr3", "sasrec"):
        load_latentr3(tmp_path / "model")


def test_negative_number_of_latents_is_refused():
    backbone, _ = load_backbone("micro", texts=TEXTS, seed=1)
    with refused("config.bad_value", "reasoning_tokens", "-1"):
        LatentR3Model(backbone, n_latents=-1)


def test_vocabulary_of_152k_trains_in_the_memory_of_its_target_tokens(tmp_path):
    """Logits of all positions would be 64 × 60 × 151,936 × 4 bytes = 2.3 GB, and more with gradients."""
    import resource

    import transformers as tf

    from latentrec.models.presets import train_tokenizer

    config = tf.Qwen2Config(
        vocab_size=151_936, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    tf.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "qwen")
    train_tokenizer(TEXTS, 400).save_pretrained(tmp_path / "qwen")
    backbone, _ = load_backbone(str(tmp_path / "qwen"), texts=(), seed=0)
    model = LatentR3Model(backbone)
    model.backbone.check()
    prompts = torch.randint(2, 300, (64, 60))
    answers = torch.full((64, 1, 4), IGNORED)
    answers[:, 0, :3] = torch.randint(2, 300, (64, 3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state = model.encode_prompt(prompts)
    loss = -model.answer_log_probs(state, model.roll_out(state), answers).sum()
    loss.backward()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 1000, f"{grown:.0f} MB"
    start = model.start_decoding(prompts[:2])
    assert start.logits_BWV.shape == (2, 1, 151_936)


def plant(backbone):
    """Files that Hugging Face's loaders pick up by themselves when they stand beside a model's own."""
    (backbone / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"})
    )
    (backbone / "special_tokens_map.json").write_text(json.dumps({"eos_token": "Title", "pad_token": "of"}))
    (backbone / "added_tokens.json").write_text(json.dumps({"<evil>": 5}))


def test_files_planted_beside_a_model_change_nothing(tmp_path):
    model, prompt = write_model(tmp_path / "model")
    plant(tmp_path / "model" / "backbone")
    loaded = load_latentr3(tmp_path / "model")
    assert loaded.prompt.tokenizer.eos_token == prompt.tokenizer.eos_token
    assert len(loaded.prompt.tokenizer) == len(prompt.tokenizer)
    before, after = model.backbone.model.state_dict(), loaded.model.backbone.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_where_a_model_was_loaded_from_stands_in_no_file_that_is_written(tmp_path):
    """A model is loaded through a temporary view; its path would make two equal models differ."""
    write_model(tmp_path / "model")
    loaded = load_latentr3(tmp_path / "model")
    (tmp_path / "again").mkdir()
    save_latentr3(loaded.model, loaded.prompt.tokenizer, tmp_path / "again")
    for path in sorted((tmp_path / "again" / "backbone").iterdir()):
        assert b"latentrec-listed" not in path.read_bytes(), path.name


def test_files_planted_beside_a_rating_model_change_nothing(tmp_path):
    from latentrec.models.rating.text_predictor import (
        architecture_entry,
        load_language_model,
        save_language_model,
    )
    from latentrec.prompts.rating_format import RatingScale
    from latentrec.prompts.rating_prompt import RatingPromptSettings

    backbone, tokenizer = load_backbone("micro", texts=TEXTS, seed=1)
    with ArtifactWriter(tmp_path / "model", "model", {}) as artifact:
        save_language_model(backbone, tokenizer, artifact.path)
        ModelInfo(
            system="reczero",
            stage="rating_grpo",
            config={},
            architecture=architecture_entry(RatingPromptSettings(), RatingScale(1, 5), 8, 3.0),
            metrics={},
            dataset_fingerprint="d",
            parent=None,
            train_end=0,
        ).write(artifact.path)
    plant(tmp_path / "model")
    loaded = load_language_model(tmp_path / "model", dtype="float32")
    assert loaded.tokenizer.eos_token == tokenizer.eos_token
    assert len(loaded.tokenizer) == len(tokenizer)
    before, after = backbone.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
