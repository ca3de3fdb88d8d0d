"""An untrained LatentR³ model directory over a given catalogue: small, real, fast to make."""

from __future__ import annotations

from pathlib import Path

import torch

from latentrec.catalog import Catalogue
from latentrec.models import ModelInfo
from latentrec.models.latentr3 import LatentR3Model, architecture, load_backbone, save_latentr3
from latentrec.prompts import NextItemPrompt
from latentrec.storage import ArtifactWriter, read_manifest


def make_latentr3(output: Path, dataset: Path) -> Path:
    torch.manual_seed(0)
    catalogue = Catalogue.read(dataset / "items.parquet")
    backbone, tokenizer = load_backbone("tiny", texts=catalogue.unique_titles, seed=0)
    prompt = NextItemPrompt(tokenizer)
    model = LatentR3Model(backbone)
    manifest = read_manifest(dataset, verify=False)
    with ArtifactWriter(output, "model", {"seed": 0}) as writer:
        save_latentr3(model, tokenizer, writer.path)
        catalogue.write(writer.path / "items.parquet")
        ModelInfo(
            system="latentr3",
            stage="sft",
            config={},
            architecture=architecture(model, prompt),
            metrics={},
            dataset_fingerprint=manifest.fingerprint,
            parent=None,
            train_end=manifest.extra["train_end"],
        ).write(writer.path)
    return output
