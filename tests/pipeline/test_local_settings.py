"""What a local run sets by itself: small presets get what suits them, other backbones the pipeline's own."""

from pipeline.run_local import OF_PRESETS, local_settings


def test_presets_get_settings_that_suit_a_small_model():
    chosen = local_settings("latentr3", {}, on_sample=False)
    assert chosen["settings"]["sft.learning_rate"] == 3e-3
    assert chosen["sft_backbone"] == "tiny"
    on_sample = local_settings("latentr3", {"sft_backbone": "small"}, on_sample=True)
    assert on_sample["settings"]["sft.max_history"] == 4
    assert on_sample["settings"]["title_objective.num_train_epochs"] == 0.5


def test_trained_backbones_keep_the_settings_of_the_pipeline():
    for backbone in ("smollm2-135m", "model.gguf", "Qwen/Qwen2.5-1.5B"):
        for on_sample in (False, True):
            for given in ({"sft_backbone": backbone}, {"settings": {"sft.backbone": backbone}}):
                chosen = local_settings("latentr3", given, on_sample=on_sample)
                assert not (set(chosen) | set(chosen.get("settings", {}))) & set(OF_PRESETS)
                assert chosen["gpu_count"] == "0"


def test_other_systems_keep_theirs():
    assert local_settings("lares", {}, on_sample=True)["sasrec_num_train_epochs"] == 20
