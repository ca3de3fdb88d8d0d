"""A reader of the documents, who types what they say into a copy of the checkout.

The commands are taken as they are printed. What a reader fills in (keys, folders, buckets) is filled in
here, and settings make the models tiny: a settings file in the environment for `make run`, more flags for
single steps.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pandas
from pyarrow import json as arrow_json
from pyarrow import parquet

from latentrec.data import Dataset, generate_sample
from tests.docs.pages import ROOT, Command
from tests.docs.printed import differences, rewritten
from tests.pipeline.runs import QUICK

WRITE = "DOCS_WRITE"
"""Set: the default `make run`, whose figures are then written into the pages as their examples."""

_RATING = (
    "pretrain_rating_backbone=tiny data_k_core=2 rating_grpo.max_steps=2 pretrain_rating.max_steps=20 "
    "pretrain_rating.measured_prompts=16 rating_grpo.measured_prompts=16 evaluate.n_resamples=100 "
    "evaluate.max_users=10 evaluate.example_users=2"
)
SMALL_RUNS = {
    # Whatever seconds of training give: the first version becomes champion, a later one does not.
    "latentr3": QUICK + " evaluate.floor=popularity evaluate.promotion_margin=1",
    "lares": "data_k_core=2 sasrec_num_train_epochs=1 spt_num_train_epochs=1 rpt_num_train_epochs=1 "
    "evaluate.n_resamples=100 evaluate.max_users=10 evaluate.example_users=2",
    "reczero": _RATING,
    "recone": _RATING + " traces.samples=32",
}
"""Settings that keep a run small, by system."""
SMALL_STEPS = {
    "pretrain-rating": "--max-steps 20 --measured-prompts 16",
    "traces": "--samples 32",
    "cold-start-sft": "--num-train-epochs 1 --measured-prompts 16",
    "rating-grpo": "--max-steps 2 --measured-prompts 16",
    "rpt": "--num-train-epochs 1",
    "train-sequential --encoder lares": "--num-train-epochs 1",
    "evaluate": "--max-users 10 --n-resamples 100 --cost-samples 0",
    "lares-depth": "--max-samples 10",
}
"""Flags that keep a step small, by what its command begins with."""
REGISTRY = ("docs/tutorials/your-model.md", "docs/evaluation.md")
"""Pages whose commands take MLflow's address from where `make run` has put it, as `using-the-model` says."""
SERVERS = {
    "make mlflow-ui": "http://127.0.0.1:5000/",
    "make serve": "http://127.0.0.1:5001/ping",
    "LATENTREC_CATALOGUE": "http://127.0.0.1:5000/ping",
    "python -m tests.fakes.gcs_server": "http://127.0.0.1:9023/storage/v1/b/demo/o",
}
"""Commands that stay in the foreground, and an address that answers while they do."""


LONGEST = 1500
"""Seconds after which a command hangs: ten times what a whole run takes on two quiet cores."""


class Reader:
    """Someone with a clone of the project, who types what the pages say."""

    def __init__(self, root: Path):
        """Copy what git tracks; the environment is this checkout's own."""
        self.root = root
        self.page = ""
        self.exported: dict[str, str] = {}
        self.server: subprocess.Popen | None = None
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in filter(None, tracked.stdout.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        (root / ".venv").symlink_to(ROOT / ".venv")
        reviews, metadata = generate_sample(root / "shop", users=60, items=72, events_per_user=15)
        for source, name in ((reviews, "reviews.json"), (metadata, "meta.json")):
            shutil.copyfile(source, root / name)
            with gzip.open(root / f"{name}.gz", "wb") as packed:
                packed.write(source.read_bytes())
        for system, settings in SMALL_RUNS.items():
            lines = [setting.replace("=", ": ", 1) for setting in settings.split()]
            (root / f"small-{system}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def environment(self, text: str) -> dict[str, str]:
        """Of a command: the environment activated, and what keeps a run small."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LATENTREC_", "RUNS_"))}
        clean["PATH"] = f"{ROOT}/.venv/bin:{clean['PATH']}"
        clean |= {"OMP_NUM_THREADS": "1", "BROWSER": "true", **self.exported}
        if text.startswith("make run"):
            named = re.search(r"SYSTEM=(\w+)", text)
            system = str(named[1]) if named else "latentr3"
            if os.environ.get(WRITE) and text == "make run":
                return clean
            if "SETTINGS=" in text:
                clean["PARAMS"] = SMALL_RUNS[system]
            else:
                clean["SETTINGS"] = f"small-{system}.yaml"
        return clean

    def types(self, command: Command) -> str:
        """Run a command as the page says; what it printed."""
        if command.page != self.page:
            self.stop()
            self.page, self.exported = command.page, {}
            if command.page in REGISTRY:
                self.exported = {"MLFLOW_TRACKING_URI": "sqlite:///runs/mlflow.db"}
            self.prepare(command.page)
        text = self.filled(command)
        if command.language == "python":
            before = "import mlflow\n" if "mlflow." in text and "import mlflow" not in text else ""
            text = f"python - <<'END'\n{before}{text}\nEND"
        if text.startswith("export "):
            name, _, value = text.removeprefix("export ").partition("=")
            self.exported[name] = value
            return ""
        address = next((url for start, url in SERVERS.items() if text.startswith(start)), None)
        if address:
            self.serve(text, address)
            return ""
        printed = self.shell(text)
        if command.printed:
            self.compare(command, printed)
        return printed

    def compare(self, command: Command, printed: str) -> None:
        """Hold a page's example output against today's, or write it (``DOCS_WRITE=1``)."""
        items = Dataset(self.dataset()).items.select(["item_key", "title"]).to_pylist()
        titles = {item["item_key"]: item["title"] for item in items}
        if os.environ.get(WRITE):
            page = ROOT / command.page
            text = rewritten(page.read_text(encoding="utf-8"), command.printed, printed)
            page.write_text(text, encoding="utf-8")
            return
        found = differences(command.printed, printed, titles)
        assert not found, f"{command.page} shows what $ {command.text} no longer prints: {found}\n{printed}"

    def prepare(self, page: str) -> None:
        """What stands ready before a page's first command."""
        registry = "MLFLOW_TRACKING_URI=sqlite:///runs/mlflow.db latentrec"
        if page == "docs/using-the-model.md":  # the bucket, and the shards of other processes
            bucket = self.root / "bucket"
            bucket.mkdir()
            shutil.copyfile(self.dataset() / "items.parquet", bucket / "items.parquet")
            histories = [["B0P3AO0OGT"], [], ["unknown"], ["B0ZV9CID3Y", "B0P3AO0OGT"]]
            users = pandas.DataFrame({"user_key": list("abcd"), "history": histories})
            users.to_parquet(bucket / "users.parquet")
            for shard in (1, 3, 4):
                self.shell(
                    f"{registry} batch-score --model models:/latentr3-sample/1 --users bucket/users.parquet "
                    f"--output bucket/serving --shard {shard}/4"
                )
        if page == "docs/data.md":  # what a warehouse has exported
            reviews, products = (
                arrow_json.read_json(self.root / f"{name}.json") for name in ("reviews", "meta")
            )
            half = len(reviews) // 2
            for folder, table in (
                ("reviews/year=2017", reviews[:half]),
                ("reviews/year=2018", reviews[half:]),
                ("products", products),
            ):
                (self.root / "bucket" / folder).mkdir(parents=True)
                parquet.write_table(table, self.root / "bucket" / folder / "part-0.parquet")
        if page == "docs/tutorials/your-model.md":  # a second champion, to go back from
            self.shell(f"{registry} promote --name latentr3-sample --version 2 --reason 'new season'")

    def shell(self, text: str) -> str:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", text],
            cwd=self.root,
            env=self.environment(text),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert done.returncode == 0, f"$ {text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def serve(self, text: str, address: str) -> None:
        """Start a server and wait for its first answer; it stays up until the page ends or another starts."""
        self.stop()
        assert not _answers(address), f"$ {text}: another server has the port of {address}"
        with (self.root / "server.log").open("w") as log:
            self.server = subprocess.Popen(
                ["bash", "-c", f"exec {text}" if "=" not in text.split()[0] else text],
                cwd=self.root,
                env=self.environment(text),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + LONGEST
        while not _answers(address):
            log_text = (self.root / "server.log").read_text()
            assert self.server.poll() is None, f"$ {text}\n{log_text[-3000:]}"
            assert time.monotonic() < deadline, f"$ {text}: no answer\n{log_text[-3000:]}"
            time.sleep(0.5)

    def stop(self) -> None:
        """Ctrl-C to the server, where there is one."""
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGINT)
            try:
                self.server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(self.server.pid, signal.SIGKILL)
                self.server.wait()
            self.server = None

    def filled(self, command: Command) -> str:
        """The command with what its reader has to fill in."""
        text = command.text
        if command.page == "docs/evaluation.md":
            text = self._evaluation(text)
        if command.page == "docs/lares.md":
            text = re.sub(r"\b(DATASET|SPT|MODEL|DEPTH)\b", lambda m: "build/" + m[1].lower(), text)
        if command.page == "docs/storage.md":
            text = text.replace("gs://bucket/checkpoints", "runs/checkpoints").replace(
                "gs://bucket/reviews/", "shop/"
            )
        text = text.replace("gs://BUCKET/", "bucket/")
        if text.startswith("curl …"):
            json = "-H 'Content-Type: application/json'"
            text = text.replace("curl …", f"curl -s http://127.0.0.1:5001/invocations {json}")
        text = text.replace("models:/latentr3-sample/7", "models:/latentr3-sample/1")
        if "B01…,B01…" in text:
            text = text.replace("B01…,B01…", ",".join(_known_keys(self.dataset())))
        for start, flags in SMALL_STEPS.items():
            if text.startswith(f"latentrec {start}") and command.page != "docs/tutorials/your-encoder.md":
                text = f"{text} {flags}"
        return text

    def _evaluation(self, text: str) -> str:
        run, ids = self.runs()[0], self.run_ids()
        filled = {
            "sasrec=DIR": f"sasrec={run}/train-sequential-2/model",
            "backbone=DIR": f"backbone={run}/sft/model",
            "latentr3=DIR": f"latentr3={run}/stage-2/model",
            "--dataset DIR": f"--dataset {self.dataset()}",
            "--output DIR": "--output build/evaluated",
            "models:/latentr3@": "models:/latentr3-sample@",
            "EVALUATION_DIR": f"{run}/evaluate/evaluation",
            "runs/…/model": f"{run}/stage-2/model",
            '"items.parquet"': f'"{self.dataset()}/items.parquet"',
            "RUN1,RUN2,RUN3": ids[0],
            "RUN4,RUN5,RUN6": ids[-1],
            "latentr3-20261127-150400-a1b2c3": ids[0],
            "latentr3-20261127-161200-d4e5f6": ids[-1],
        }
        for printed, meant in filled.items():
            text = text.replace(printed, meant)
        return text

    def runs(self) -> list[Path]:
        """Folders of the LatentR3 runs on the generated shop, oldest first."""
        return sorted((self.root / "runs/pipeline_root").glob("latentr3-*"))

    def run_ids(self) -> list[str]:
        """Ids of those runs."""
        return sorted(path.name for path in (self.root / "runs/status").glob("latentr3-*"))

    def dataset(self) -> Path:
        """Dataset of the first of those runs."""
        return self.runs()[0] / "data-prep/dataset"


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status < 500)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def _known_keys(dataset: Path) -> list[str]:
    return list(Dataset(dataset).items["item_key"].to_pylist()[:2])
