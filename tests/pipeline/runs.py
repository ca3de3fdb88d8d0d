"""Whole local runs for tests: a small shop, small settings, the command that `make run` calls."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICK = (
    "sft_backbone=micro data_k_core=2 sft_num_train_epochs=1 sasrec_num_train_epochs=2 "
    "title_objective.num_train_epochs=0.1 eval_beam_width=5 "
    "sft.max_train_samples=256 sft.validation_samples=64 "
    "title_objective.max_steps=2 evaluate.n_resamples=100 "
    "evaluate.cost_samples=0 evaluate.max_users=20 evaluate.example_users=2"
)


@dataclass(frozen=True)
class Finished:
    """A finished `make run`."""

    code: int
    text: str
    runs: Path

    @property
    def artifacts(self) -> list[Path]:
        """Directories that look complete."""
        return sorted((self.runs / "pipeline_root").rglob("manifest.json"))


def make_run(
    runs: Path,
    *,
    reviews: Path,
    metadata: Path,
    params: str = QUICK,
    system: str = "latentr3",
    **environment: str,
) -> Finished:
    """Run ``python -m pipeline.run_local`` as `make run` does, with everything below ``runs``."""
    command = [sys.executable, "-m", "pipeline.run_local", "--reviews", str(reviews)]
    command += ["--metadata", str(metadata), "--params", params, "--system", system]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LATENTREC_"))}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**clean, "RUNS_DIR": str(runs), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    return Finished(done.returncode, done.stdout + done.stderr, runs)
