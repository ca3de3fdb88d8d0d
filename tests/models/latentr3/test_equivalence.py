"""The shared-prefix passes give what the plain double forward gives: losses, gradients, every family."""

import pytest
import torch
from torch import nn

from latentrec.models.latentr3 import IGNORED, LatentR3Model

FAMILIES = ("qwen2", "qwen3", "llama", "gemma", "gemma2", "gemma3", "mistral")
V = 97


def tiny_backbone(family: str, seed: int = 0):
    import transformers as tf

    common = {
        "vocab_size": V,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "attn_implementation": "eager" if family == "gemma2" else "sdpa",
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    torch.manual_seed(seed)
    if family == "qwen2":
        model = tf.Qwen2ForCausalLM(tf.Qwen2Config(**common, tie_word_embeddings=True))
    elif family == "qwen3":
        model = tf.Qwen3ForCausalLM(tf.Qwen3Config(**common, head_dim=8))
    elif family == "llama":
        model = tf.LlamaForCausalLM(tf.LlamaConfig(**common))
    elif family == "gemma":
        model = tf.GemmaForCausalLM(tf.GemmaConfig(**common, head_dim=8))
    elif family == "gemma2":
        model = tf.Gemma2ForCausalLM(tf.Gemma2Config(**common, head_dim=8, sliding_window=6))
    elif family == "gemma3":
        kinds = ["sliding_attention", "full_attention"]
        model = tf.Gemma3ForCausalLM(
            tf.Gemma3TextConfig(**common, head_dim=8, sliding_window=6, layer_types=kinds)
        )
    else:
        model = tf.MistralForCausalLM(tf.MistralConfig(**common, sliding_window=6))
    with torch.no_grad():  # larger weights than the usual initialization, so that differences would show
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    return model


def make_model(family="qwen2", n_latents=1, **options) -> LatentR3Model:
    backbone = tiny_backbone(family)
    torch.manual_seed(1)
    return LatentR3Model(backbone, n_latents=n_latents, **options).eval()


def examples(seed=0, prompts=(9, 4, 12), answers=(5, 3, 4)):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(2, V, (n,), generator=generator)  # noqa: E731
    return [draw(n) for n in prompts], [draw(n) for n in answers]


def padded(rows, side, value):
    width = max(map(len, rows)) + 2  # more padding than needed: the longest row is padded too
    out = torch.full((len(rows), width), value)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        out[i, at] = row
        mask[i, at] = 1
    return out, mask


def plain_latent_ratt(ratt: nn.Module, hidden_TD: torch.Tensor) -> torch.Tensor:
    """The formula, one prompt, one pair at a time; rotary embedding as complex rotations."""
    d = hidden_TD.shape[-1]
    length = len(hidden_TD)

    def rotate(x, position):
        half = d // 2
        theta = position * 1000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        z = torch.complex(x[:half].double(), x[half:].double()) * torch.polar(torch.ones_like(theta), theta)
        return torch.cat([z.real, z.imag]).float()

    q = rotate(ratt.q_proj.weight @ hidden_TD[-1] + ratt.q_proj.bias, length - 1)
    scores = []
    for t in range(length):
        k = rotate(ratt.k_proj.weight @ hidden_TD[t] + ratt.k_proj.bias, t)
        scores.append((q * k).sum() / d**0.5)
    weights = torch.softmax(torch.stack(scores), 0)
    values = hidden_TD @ ratt.v_proj.weight.T + ratt.v_proj.bias
    return weights @ values


def plain_answer_log_probs(model: LatentR3Model, prompt, answer, noise_ND=None):
    """Double forward: the whole sequence again for each latent, and once more for the answer."""
    lm = model.backbone.model
    embeds = lm.get_input_embeddings()(prompt)[None]
    for i in range(model.n_latents):
        hidden = lm.get_decoder()(inputs_embeds=embeds, use_cache=False).last_hidden_state[0]
        r = plain_latent_ratt(model.latent_ratt, hidden) if model.latent_ratt else hidden[-1]
        if noise_ND is not None:
            r = r + noise_ND[i]
        embeds = torch.cat([embeds, r[None, None]], dim=1)
    whole = torch.cat([embeds, lm.get_input_embeddings()(answer)[None]], dim=1)
    logits = lm(inputs_embeds=whole, use_cache=False).logits[0].float()
    at = embeds.shape[1] - 1
    log_probs = torch.log_softmax(logits[at : at + len(answer)], dim=-1)
    return log_probs.gather(1, answer[:, None])[:, 0]


def mean_loss(log_probs, count):
    return -log_probs.sum() / count


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def relative_error(ours, theirs):
    assert ours.keys() == theirs.keys()
    worst = 0.0
    scale = max(float(g.norm()) for g in theirs.values())
    for name in ours:
        difference = float((ours[name] - theirs[name]).norm())
        worst = max(worst, difference / max(float(theirs[name].norm()), 1e-3 * scale))
    return worst


def shared_loss(model, prompts, answers, side):
    ids, mask = padded(prompts, side, 0)
    labels, _ = padded(answers, "right", IGNORED)
    state = model.encode_prompt(ids, mask)
    log_probs = model.answer_log_probs(state, model.roll_out(state), labels[:, None])
    return mean_loss(log_probs, int((labels != IGNORED).sum()))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("n_latents", [0, 1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prefix_loss_and_gradients_equal_double_forward(family, n_latents, side):
    model = make_model(family, n_latents)
    prompts, answers = examples()
    plain = torch.cat([plain_answer_log_probs(model, p, a) for p, a in zip(prompts, answers, strict=True)])
    plain_loss = mean_loss(plain, len(plain))
    plain_gradients = gradients(model, plain_loss)
    loss = shared_loss(model, prompts, answers, side)
    assert abs(float(loss - plain_loss)) <= 1e-5
    assert relative_error(gradients(model, loss), plain_gradients) <= 1e-4


def test_last_hidden_state_as_latent_equals_double_forward():
    model = make_model(n_latents=2, latent_source="last_hidden")
    assert model.latent_ratt is None
    prompts, answers = examples()
    plain = torch.cat([plain_answer_log_probs(model, p, a) for p, a in zip(prompts, answers, strict=True)])
    loss = shared_loss(model, prompts, answers, "right")
    assert abs(float(loss - mean_loss(plain, len(plain)))) <= 1e-5


@pytest.mark.parametrize("n_latents", [1, 3])
def test_noised_copies_on_one_cache_equal_separate_sequences(n_latents):
    model = make_model(n_latents=n_latents)
    prompts, answers = examples()
    noise = torch.randn(3, 4, n_latents, 32, generator=torch.Generator().manual_seed(5))
    ids, mask = padded(prompts, "right", 0)
    labels, _ = padded(answers, "right", IGNORED)
    state = model.encode_prompt(ids, mask)
    rollout = model.roll_out(state, copies=4, noise_BMND=noise)
    ours = model.answer_log_probs(state, rollout, labels[:, None])
    for i in range(3):
        for k in range(4):
            plain = plain_answer_log_probs(model, prompts[i], answers[i], noise[i, k])
            assert torch.allclose(ours[i, k, : len(plain)], plain, atol=2e-5)
            assert (ours[i, k, len(plain) :] == 0).all()


def test_without_latents_the_plain_backbone_is_reproduced_bit_for_bit():
    model = make_model(n_latents=0)
    prompts, answers = examples(prompts=(9, 9), answers=(4, 4))
    ours = model.plain_log_probs(prompts, torch.stack(answers))
    ids = torch.stack([torch.cat([p, a]) for p, a in zip(prompts, answers, strict=True)])
    logits = model.backbone.model(input_ids=ids[:, :-1]).logits[:, 8:].float()
    plain = -nn.functional.cross_entropy(logits.reshape(-1, V), ids[:, 9:13].reshape(-1), reduction="none")
    assert torch.equal(ours, plain.view(2, 4))


def test_checkpointed_layers_give_the_same_gradients():
    prompts, answers = examples()
    plain = make_model(n_latents=2)
    expected = gradients(plain, shared_loss(plain, prompts, answers, "right"))
    model = make_model(n_latents=2)
    model.backbone.enable_checkpointing()
    assert relative_error(gradients(model, shared_loss(model, prompts, answers, "right")), expected) <= 1e-5


def test_log_probs_in_pieces_equal_log_probs_at_once(monkeypatch):
    prompts, answers = examples()
    model = make_model()
    expected = gradients(model, shared_loss(model, prompts, answers, "right"))
    monkeypatch.setattr("latentrec.models.latentr3.backbone.LOGIT_ELEMENTS_AT_ONCE", 5 * V)
    assert relative_error(gradients(model, shared_loss(model, prompts, answers, "right")), expected) <= 1e-5


@pytest.mark.parametrize("n_latents", [0, 1, 2])
@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_decoding_on_shared_slots_equals_the_whole_sequence(family, n_latents):
    model = make_model(family, n_latents)
    prompts, _ = examples()
    ids, mask = padded(prompts, "left", 0)
    state = model.start_decoding(ids, mask)
    first = torch.tensor([[5, 9], [6, 7], [8, 4]])
    state = model.decode_step(state, first, torch.zeros(3, 2, dtype=torch.long))
    second, parents = torch.tensor([[3, 11, 12], [13, 14, 15], [16, 17, 18]]), torch.tensor([[1, 0, 1]] * 3)
    state = model.decode_step(state, second, parents)
    for i in range(3):
        for w in range(3):
            answer = torch.stack([first[i, parents[i, w]], second[i, w]])
            for token in (20, 33):
                whole = plain_answer_log_probs(model, prompts[i], torch.cat([answer, torch.tensor([token])]))
                ours = torch.log_softmax(state.logits_BWV[i, w], -1)[token]
                assert abs(float(ours - whole[-1])) < 2e-5


def test_latent_ratt_has_as_many_parameters_as_the_paper():
    from latentrec.models.latentr3 import LatentRATT

    with torch.device("meta"):
        assert sum(p.numel() for p in LatentRATT(1536).parameters()) == 7_082_496


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_the_check_at_loading(family):
    make_model(family).backbone.check()
