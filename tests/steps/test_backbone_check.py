"""Whether a backbone fits into the memory that a run asks for, before a GPU is paid for."""

import inspect
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from latentrec.core.settings import HUB_VARIABLE
from latentrec.steps.backbone_check import (
    LORA_SETTINGS,
    check_backbone,
    parameter_count,
    training_gb,
)
from latentrec.steps.node_pools import GPU_MEMORY_GB
from latentrec.steps.parameters import check_parameters
from pipeline.dags import SYSTEMS, pipeline_of
from tests.errors import refused

QWEN_1_5B = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
}
PUBLISHED = {"Qwen/Qwen2.5-1.5B": 1.54e9, "Qwen/Qwen2.5-1.5B-Instruct": 1.54e9}
"""Parameters by the model cards."""


def backbone(folder, sizes) -> str:
    (folder / "config.json").write_text(json.dumps(sizes))
    return str(folder)


def run(folder, system: str = "latentr3", sizes: dict = QWEN_1_5B, settings=None, **more) -> str:
    step = "sft" if system == "latentr3" else "pretrain_rating"
    parameters = {f"{step}_backbone": backbone(folder, sizes), "gpu_count": "1", **more}
    given = {"customer_reviews": "r.json", **parameters}
    return check_backbone(system, given, check_parameters(system, given, settings))


def test_parameters_are_counted_from_the_sizes():
    assert parameter_count(QWEN_1_5B) == pytest.approx(1.54e9, rel=0.01)
    assert parameter_count(QWEN_7B) == pytest.approx(7.62e9, rel=0.01)


@pytest.mark.parametrize("system", [system for system in SYSTEMS if system != "lares"])
def test_a_system_s_own_backbone_fits_its_own_accelerator(system):
    parameters = inspect.signature(pipeline_of(system).pipeline_func).parameters
    need = training_gb(
        int(PUBLISHED[next(p.default for name, p in parameters.items() if name.endswith("_backbone"))])
    )
    assert need < GPU_MEMORY_GB[parameters["gpu_type"].default]


def test_what_does_not_fit_is_refused_with_what_would(tmp_path):
    with refused("backbone.too_large", "158", "gpu_type", "nvidia-h200-141gb", "141"):
        run(tmp_path, "reczero", QWEN_7B, gpu_type="nvidia-h200-141gb")
    with refused("backbone.too_large", "nvidia-l4", "24"):
        run(tmp_path, gpu_type="nvidia-l4")
    assert "1,544 M parameters" in run(tmp_path, gpu_type="nvidia-l4", gpu_count="0")


@pytest.mark.parametrize("system", LORA_SETTINGS)
def test_adapters_fit_where_all_weights_do_not(tmp_path, system):
    """With the very options that the refusal names, which the steps' own configurations take."""
    settings = LORA_SETTINGS[system]
    named = [f"{name}={value}" for name, value in settings.items()]
    with refused("backbone.too_large", *named):
        run(tmp_path, system, QWEN_7B, gpu_type="nvidia-a100-80gb")
    assert run(tmp_path, system, QWEN_7B, settings, gpu_type="nvidia-a100-80gb")


def test_adapters_in_one_of_two_steps_do_not_count(tmp_path):
    settings = {"rating_grpo.lora_rank": 16}
    with refused("backbone.too_large", "158"):
        run(tmp_path, "recone", QWEN_7B, settings, gpu_type="nvidia-a100-80gb")


def test_a_dead_hub_is_refused_at_once_by_the_parameter_s_name(monkeypatch):
    """Its own client tries for half a minute; a mistake in a form is to be shown within one minute."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    begun = time.monotonic()
    named = (
        "sft_backbone: ",
        "'no/such-model'",
        "HF_ENDPOINT (now http://127.0.0.1:9)",
        "latentrec-settings",
    )
    with refused("backbone.hub_unreachable", *named):
        check_backbone("latentr3", {}, {"sft": {"backbone": "no/such-model"}})
    assert time.monotonic() - begun < 5


def test_a_mirror_of_the_hub_is_asked_where_the_settings_name_one(tmp_path):
    """As in a step's pod: the variable from the ConfigMap, in a process of its own, and nothing else."""
    asked = []

    class Mirror(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            asked.append(self.path)
            body = json.dumps({"hidden_size": 8, "vocab_size": 16, "num_hidden_layers": 1}).encode()
            there = self.path in ("/", "/org/small/resolve/main/config.json")
            self.send_response(200 if there else 404)
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        code = (
            "from latentrec.steps.backbone_check import check_backbone\n"
            "print(check_backbone('latentr3', {}, {'sft': {'backbone': 'org/small'}}))\n"
        )
        environment = {
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        }
        environment |= {
            HUB_VARIABLE: f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("org/small: ")
    assert "/org/small/resolve/main/config.json" in asked


def test_what_is_wrong_with_a_backbone_is_said_by_the_parameter_s_name():
    with refused("backbone.unknown_name", "pretrain_rating_backbone: ", "'nowhere'"):
        check_backbone("reczero", {}, {"pretrain_rating": {"backbone": "nowhere"}})
