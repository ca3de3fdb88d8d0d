"""What a local run sets by itself: small presets get what suits them, other backbones the pipeline's own."""

from pipeline.run_local import OF_PRESETS, local_settings


def test_presets_get_settings_that_suit_a_small_model():
    settings = local_settings("latentr3", {}, on_sample=False)
    assert settings["sft_learning_rate"] == 3e-3
    assert settings["backbone"] == "tiny"
    assert local_settings("latentr3", {"backbone": "small"}, on_sample=True)["sft_learning_rate"] == 2e-3


def test_trained_backbones_keep_the_settings_of_the_pipeline():
    for backbone in ("smollm2-135m", "model.gguf", "Qwen/Qwen2.5-1.5B"):
        for on_sample in (False, True):
            settings = local_settings("latentr3", {"backbone": backbone}, on_sample=on_sample)
            assert not set(settings) & set(OF_PRESETS)
            assert settings["gpu_count"] == "0"


def test_other_systems_keep_theirs():
    assert local_settings("lares", {}, on_sample=True)["sasrec_epochs"] == 20
