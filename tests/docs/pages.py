"""The commands of README, tutorials and guides, and which of them cannot run here and why."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OF_THE_MODEL = [
    "README.md",
    "docs/tutorials/first-run.md",
    "docs/using-the-model.md",
    "docs/tutorials/your-model.md",
    "docs/evaluation.md",
]
"""Pages that use what `make run` has registered, in the order in which a reader meets them."""
OF_OWN_DATA = [
    "docs/tutorials/your-data.md",
    "docs/tutorials/your-encoder.md",
    "docs/data.md",
    "docs/lares.md",
    "docs/rating.md",
    "docs/storage.md",
    "docs/latentr3.md",
    "docs/estimator.md",
    "docs/research/latent-controls.md",
    "docs/tutorials/first-cluster.md",
    "docs/operations.md",
    "CONTRIBUTING.md",
]
"""The others, which use reviews of their own and each other's datasets."""
PAGES = [*OF_THE_MODEL, *OF_OWN_DATA]
"""What an earlier page of a list has made, a later one uses."""

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    r"^(?:[A-Z_]+=\S+ )?(?:make|latentrec|python|mlflow|curl|torchrun|kubectl|gcloud|export|\. \.venv)\b"
)

NOT_RUN = {
    r"^(kubectl|gcloud|export (PROJECT|IMAGE|KFP)|make (smoke-cluster|pipeline-(submit|sched|pause)))": (
        "needs a cluster: make smoke-cluster is its test; against a KFP server of our own: tests/pipeline"
    ),
    r"^export MLFLOW_TRACKING_URI=http|^make serve-manifest": (
        "needs an MLflow server that pods reach: tests/pipeline/test_serve_manifest.py"
    ),
    r"^make (images|push|test-containers|run RUNNER=docker)": "needs docker or podman: .ci/containers",
    r"^make pipeline-compile (RELEASE|IMAGE_REGISTRY)": "needs pushed images: tests/pipeline/test_images.py",
    r"^make demo": "needs Gradio and Chromium: make test-browser",
    r"^torchrun|QWEN|smollm2|--bf16|--vllm|DIR_OR_HUB_ID": "needs GPUs or the weights of a published model",
    r"^python -m benchmarks|CDS|STAGE1 --no-load": "hours on a GPU; what they gave is in docs/results",
    r"GRPOTrainer\(model=…": "a fragment of your own trainer: tests/training/rating has the rewards",
    r"^make (setup|test|lint)$|^\. \.venv": "a step of .ci/run; the commands here run in that environment",
    r"--encoder mean_pooling|liked$|-m pipeline\.compile|from-pipes$": (
        "needs the section's diff: tests/docs/test_contributing.py"
    ),
}
"""What does not run in `make test-docs`, by what it begins with or holds, and why or where it does."""


@dataclass(frozen=True)
class Command:
    """One command of a page, lines that go on joined.

    Attributes:
        page: path of the page from the checkout's root.
        text: what is typed, or the block of Python.
        language: of its block.
        printed: the block that the page shows as its output; empty: none.
    """

    page: str
    text: str
    language: str = ""
    printed: str = ""

    def __str__(self) -> str:
        return f"{self.page}: {self.text[:60]}"

    @property
    def why_not(self) -> str:
        """Why it is not run; empty: it is."""
        return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, self.text)), "")


def commands_of(page: str) -> list[Command]:
    """Commands of a page in order: shell lines, and blocks of Python."""
    found: list[Command] = []
    text = (ROOT / page).read_text(encoding="utf-8")
    end = -1
    for block in BLOCK.finditer(text):
        language, body = block[1], block[2]
        follows = block.start() == end + 1 and bool(found)
        end = block.end()
        if language == "python":
            found.append(Command(page, body, "python"))
        elif language in ("", "bash", "sh"):
            session = re.match(r"\$ (.+)\n((?:.|\n)+)", body)
            joined = re.sub(r"\\\n\s*", "", body)
            lines = [
                re.split(r"\s+#(?= )|\s{3,}(?=[a-z…].*→)", line)[0].strip() for line in joined.split("\n")
            ]
            commands = [Command(page, line) for line in lines if COMMAND.match(line)]
            if session:
                found.append(Command(page, session[1], "", session[2]))
            elif language == "" and follows and not commands:
                found[-1] = replace(found[-1], printed=body)
            found += commands
    return found


ALL = [command for page in PAGES for command in commands_of(page)]


def to_type(pages: list[str]) -> list[Command]:
    """Commands of pages that run here, in order; a whole run that an earlier page has had is not repeated."""
    chosen: list[Command] = []
    runs: set[str] = set()
    for command in ALL:
        again = command.text.startswith("make run") and command.text in runs
        runs.add(command.text)
        if command.page in pages and not command.why_not and not again:
            chosen.append(command)
    return chosen
