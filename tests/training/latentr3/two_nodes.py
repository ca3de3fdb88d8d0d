"""A small stage 1 as one process of a world: ``python -m`` this module, with a JSON object of what to do.

It stands for what a pod of a TrainJob trains, and can be killed on the way as a lost node is.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from latentrec.core import Interrupted
from tests.training.latentr3.first_gradients import FirstGradients, callbacks_of_trainings
from tests.training.latentr3.latentr3_runs import Recorder, sft

OPTIONS = {"num_train_epochs": 1, "evals_per_epoch": 1, "ranking_samples": 0, "packing": "none"}
SAVE_STEPS = 2


def main(given: dict) -> None:
    """Train; ``kill`` = [rank, step, flag file] ends that process once, ``stop`` = step ends all of them."""
    folder = Path(given["output"])
    folder.mkdir(parents=True, exist_ok=True)
    rank = int(os.environ.get("RANK", "0"))

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            kill = given.get("kill")
            if kill and (rank, state.global_step) == (kill[0], kill[1]) and not Path(kill[2]).exists():
                Path(kill[2]).write_text("")
                os.kill(os.getpid(), signal.SIGKILL)
            if given.get("stop") == state.global_step:
                os.kill(os.getpid(), signal.SIGTERM)

    recorder = Recorder()
    try:
        with callbacks_of_trainings(FirstGradients(folder), Stop()):
            sft(
                Path(given["dataset"]),
                folder / "model",
                metric_logger=recorder,
                root=given.get("checkpoints"),
                **(OPTIONS | {"save_steps": SAVE_STEPS} | given.get("options", {})),
            )
    except Interrupted:
        return
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if rank == 0:
        (folder / "losses.json").write_text(json.dumps(recorder.series("train/loss")))
        resumed = recorder.series("train/resumed_at_step")
        (folder / "resumed.json").write_text(json.dumps([*resumed.values()]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
