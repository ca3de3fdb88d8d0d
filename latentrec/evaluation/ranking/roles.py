"""Who takes part in an evaluation, under which name, and as what: challenger, baselines, assistant, floor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentrec.core import UserError
from latentrec.decoding import MIXED
from latentrec.evaluation.evaluate_config import Champion, EvaluateConfig
from latentrec.models import ModelInfo, read_model
from latentrec.storage import Manifest

BASELINE_SYSTEMS = ("popularity", "sasrec", "gru4rec", "caser")
POPULARITY = "popularity"
ALONE = "-alone"
"""Ends the name of the row that shows a mixture's language model without its assistant."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Roles:
    """The models of an evaluation.

    Attributes:
        directories, infos, manifests: by name, in the order of the tables.
        runs: name that was given → names of its training runs; the first is the one to register.
        challenger: name that was given of the model that may become champion.
        popularity: name of the popularity model; it is added where none is given.
        assistant: model that helps the mixtures; ``None``: title models rank alone.
        baseline: model that comparison.json tests the others against: the backbone without reasoning, else
            popularity.
    """

    directories: dict[str, Path]
    infos: dict[str, ModelInfo]
    manifests: dict[str, Manifest]
    runs: dict[str, list[str]]
    challenger: str
    popularity: str
    assistant: str | None
    baseline: str

    @property
    def baselines(self) -> list[str]:
        """Models that are compared with and not proposed, the challenger's own runs left out."""
        own = self.runs[self.challenger]
        found = [name for name, info in self.infos.items() if is_baseline(info) and name not in own]
        return found if self.popularity in (*found, *own) else [self.popularity, *found]

    def helpers(self) -> dict[str, list[str]]:
        """Title model → models whose scores it uses."""
        if self.assistant is None:
            return {}
        return {name: [self.assistant] for name, info in self.infos.items() if info.system == "latentr3"}


def assign_roles(
    models: Mapping[str, str | Path | Sequence[str | Path]], config: EvaluateConfig, champion: Champion | None
) -> Roles:
    """Check the names, read the models, and say who is what.

    Raises:
        UserError: no models, a name that cannot be a file's or is taken, or a name that ``config`` asks for
            and that is not among the models.
    """
    directories, runs = named_runs(models, champion)
    described = {name: read_model(directory) for name, directory in directories.items()}
    infos = {name: info for name, (info, _) in described.items()}
    challenger = named(config.challenger, "challenger", list(runs), default=list(runs)[-1])
    popularity = next((name for name, info in infos.items() if info.system == POPULARITY), POPULARITY)
    return Roles(
        directories=directories,
        infos=infos,
        manifests={name: manifest for name, (_, manifest) in described.items()},
        runs=runs,
        challenger=challenger,
        popularity=popularity,
        assistant=_assistant(config, infos),
        baseline=next((name for name, info in infos.items() if is_plain_backbone(info)), popularity),
    )


def is_baseline(info: ModelInfo) -> bool:
    """An ID-based encoder, popularity, or a backbone without reasoning."""
    return info.system in BASELINE_SYSTEMS or is_plain_backbone(info)


def is_plain_backbone(info: ModelInfo) -> bool:
    """A title model that does not reason: N = 0 latent tokens."""
    return info.system == "latentr3" and info.architecture.get("n_latents") == 0


def named_runs(
    models: Mapping[str, str | Path | Sequence[str | Path]], champion: Champion | None = None
) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Directories by name, and the names of each model's training runs: ``m``, ``m.run2``, ``m.run3``…

    Raises:
        UserError: no models, or a name that cannot be a file's or is taken.
    """
    if not models:
        raise UserError("evaluate needs at least one model: --model NAME=DIR", code="evaluation.no_model")
    directories: dict[str, Path] = {}
    runs: dict[str, list[str]] = {}
    for name, given in models.items():
        if not _NAME.fullmatch(name):
            raise UserError(
                f"model name {name!r} cannot be a file's name; use letters, digits, '_', '-', '.' and '+'",
                code="evaluation.bad_name",
            )
        several = [given] if isinstance(given, str | Path) else list(given)
        runs[name] = [name if number == 1 else f"{name}.run{number}" for number in range(1, len(several) + 1)]
        for run, directory in zip(runs[name], several, strict=True):
            if run in directories or (run.removesuffix(ALONE) in models and run.endswith(ALONE)):
                raise UserError(
                    f"two models would be called {run!r} in the tables; choose another name",
                    code="evaluation.repeated_name",
                )
            directories[run] = Path(directory)
    if champion is not None and champion.label in directories:
        raise UserError(
            f"a model is called {champion.label!r}, which is the champion's name in the tables",
            code="evaluation.reserved_name",
        )
    return directories, runs


def named(asked: str | None, role: str, names: list[str], default: str) -> str:
    """The model that ``evaluate.<role>`` names, else ``default``.

    Raises:
        UserError: there is no such model.
    """
    if asked is not None and asked not in names:
        raise UserError(
            f"evaluate.{role} is {asked!r}; the models are: {', '.join(names)}",
            code="evaluation.unknown_model",
        )
    return asked or default


def _assistant(config: EvaluateConfig, infos: Mapping[str, ModelInfo]) -> str | None:
    if config.decoding not in MIXED:
        return None
    default = next((name for name, info in infos.items() if info.system == "sasrec"), "")
    name = named(config.assistant, "assistant", list(infos), default=default) or None
    if name is None and config.alpha is not None and config.alpha < 1.0:
        raise UserError(
            f"decoding {config.decoding} with alpha {config.alpha:g} needs an assistant: give a sasrec model "
            "with --model, or --assistant NAME; alpha 1 is the title model alone",
            code="decoding.needs_assistant",
        )
    return name
