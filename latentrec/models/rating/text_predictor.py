"""A language model that reasons in text before it rates: loading, generation, reading the answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from latentrec.core import UserError
from latentrec.models.gguf import origin_note
from latentrec.models.model_directory import ModelInfo, read_model
from latentrec.prompts.rating_examples import RatingExample
from latentrec.prompts.rating_format import RatingAnswer, RatingScale, parse_answer
from latentrec.prompts.rating_prompt import RatingPrompt, RatingPromptSettings
from latentrec.storage import MANIFEST, Manifest, listed_files


@dataclass(frozen=True)
class RatingPrediction:
    """One prediction.

    Attributes:
        rating: NaN where the text is no valid answer; what stands in for it is the evaluation's business.
        reasoning: the three analyses; the raw text where it is no valid answer.
        text: what the model wrote.
        fault: kind of :class:`FormatFault`, ``truncated`` where the budget ended first, ``None`` if valid.
        prompt_tokens, completion_tokens: what was read and written.
        seconds: share of the batch's wall time.
    """

    rating: float
    reasoning: str
    text: str
    fault: str | None
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass
class LoadedModel:
    """A language model ready to train or to rate: weights, tokenizer, how to ask it, where it is from."""

    model: Any
    tokenizer: Any
    settings: RatingPromptSettings | None
    scale: RatingScale | None
    info: ModelInfo | None
    fingerprint: str | None

    @property
    def notes(self) -> list[str]:
        """Provenance that follows the model wherever it goes."""
        notes = list(self.info.notes) if self.info else []
        if (origin := getattr(self.model.config, "origin", None)) is not None:
            notes += [note for note in [origin_note(origin)] if note not in notes]
        return notes


def architecture_entry(
    settings: RatingPromptSettings, scale: RatingScale, max_new_tokens: int, global_mean: float
) -> dict[str, Any]:
    """What ``model.json`` holds so that serving asks as training did."""
    return {
        "kind": "rating_language_model",
        "prompt": asdict(settings),
        "scale": [scale.low, scale.high],
        "max_new_tokens": max_new_tokens,
        "global_mean": global_mean,
    }


def load_language_model(location: str | Path, *, dtype: str = "auto") -> LoadedModel:
    """Load a causal language model and its tokenizer.

    Args:
        location: a model directory of this project, or what
            :func:`~latentrec.models.latentr3.backbone_source.load_trained` knows: a directory in the Hugging
            Face format, a ``.gguf`` file, a named model, ``gs://``, a hub id.
        dtype: ``float32``, ``bfloat16``, or ``auto``: bfloat16 on a GPU that has it, else float32.

    Raises:
        UserError: nothing loadable is there, or it would need pickled weights or code from the checkpoint.
    """
    path = Path(location)
    info, fingerprint, settings, scale = None, None, None, None
    listed: Manifest | None = None
    source = str(location)
    if (path / MANIFEST).is_file():
        info, listed = read_model(path)
        fingerprint = listed.fingerprint
        entry = info.architecture
        if entry.get("kind") != "rating_language_model":
            raise UserError(
                f"{path} is a {info.system} model ({info.stage}), expected a rating model",
                code="model.other_kind",
            )
        settings, scale = RatingPromptSettings(**entry["prompt"]), RatingScale(*entry["scale"])
        source = entry.get("backbone") or source
    elif path.is_dir() and not (path / "config.json").is_file():
        raise UserError(
            f"{path}: no {MANIFEST} and no config.json; give a model directory or a hub id",
            code="model.unreadable",
        )
    from latentrec.models.latentr3.backbone_source import load_trained

    with contextlib.ExitStack() as stack:
        if listed is not None and source == str(location):
            source = str(stack.enter_context(listed_files(path, listed)))
        model, tokenizer = load_trained(source, dtype=str(torch_dtype(dtype)).removeprefix("torch."))
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LoadedModel(model, tokenizer, settings, scale, info, fingerprint)


def torch_dtype(name: str) -> torch.dtype:
    """The dtype that ``auto``, ``float32`` or ``bfloat16`` stands for on this machine."""
    if name == "auto":
        name = "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def save_language_model(model: Any, tokenizer: Any, directory: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer into a directory that is being made."""
    if hasattr(model, "merge_and_unload"):  # a LoRA adapter becomes part of the weights
        model = model.merge_and_unload()
    model.save_pretrained(directory, safe_serialization=True)
    tokenizer.save_pretrained(directory)


class TextRatingPredictor:
    """Rates examples by generating an answer to each and reading it strictly.

    Args:
        model, tokenizer: as loaded.
        prompt: renders an example for this tokenizer.
        max_new_tokens: budget of an answer; one that does not end within it is ``truncated`` unless it is
            whole already.
        name: for tables.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompt: RatingPrompt, *, max_new_tokens: int, name: str = ""
    ):
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.max_new_tokens, self.name = max_new_tokens, name

    @classmethod
    def load(cls, model_dir: str | Path) -> TextRatingPredictor:
        """Load a trained model directory.

        Raises:
            UserError: it is no rating model.
        """
        loaded = load_language_model(model_dir)
        if loaded.info is None:
            raise UserError(
                f"{model_dir}: no finished model directory of this project", code="model.unreadable"
            )
        if torch.cuda.is_available():
            loaded.model.cuda()
        prompt = RatingPrompt(loaded.tokenizer, loaded.settings, loaded.scale)
        return cls(
            loaded.model,
            loaded.tokenizer,
            prompt,
            max_new_tokens=int(loaded.info.architecture["max_new_tokens"]),
            name=loaded.info.system,
        )

    def predict(
        self,
        examples: Sequence[RatingExample],
        *,
        batch_size: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[RatingPrediction]:
        """Rate each example; greedily by default, sampled by ``seed`` where ``temperature`` is above 0.

        Prompts are batched by length and padded on the left; predictions come in the order of ``examples``.
        """
        prompts = [self.prompt.token_ids(self.prompt.render(example)) for example in examples]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        found: dict[int, RatingPrediction] = {}
        generator_state = torch.get_rng_state()
        torch.manual_seed(seed)
        was_training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                answers = self._generate([prompts[index] for index in batch], temperature)
                found.update(zip(batch, answers, strict=True))
        finally:
            self.model.train(was_training)
            torch.set_rng_state(generator_state)
        return [found[index] for index in range(len(examples))]

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]], temperature: float) -> list[RatingPrediction]:
        start = time.perf_counter()
        device = self.model.device
        width = max(map(len, prompts))
        pad, eos = self.tokenizer.pad_token_id, self._end_ids()
        ids_BT = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=device)
        mask_BT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        written = self.model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=self.max_new_tokens,
            pad_token_id=pad,
            eos_token_id=eos,
            repetition_penalty=1.0,
            num_beams=1,
            **sampling,
        )[:, width:].tolist()
        seconds = (time.perf_counter() - start) / len(prompts)
        return [self._read(len(p), row, set(eos), seconds) for p, row in zip(prompts, written, strict=True)]

    def _read(self, prompt_tokens: int, row: list[int], eos: set[int], seconds: float) -> RatingPrediction:
        length = next((i + 1 for i, token in enumerate(row) if token in eos), None)
        text = self.tokenizer.decode(row[: length or len(row)], skip_special_tokens=True)
        parsed = parse_answer(text, self.prompt.scale)
        if isinstance(parsed, RatingAnswer):
            rating, reasoning, fault = parsed.rating, parsed.reasoning, None
        else:
            rating, reasoning = float("nan"), text
            fault = parsed.kind if length is not None else "truncated"
        return RatingPrediction(
            rating, reasoning, text, fault, prompt_tokens, length if length is not None else len(row), seconds
        )

    def _end_ids(self) -> list[int]:
        """Every token that ends an answer: the tokenizer's own and those that the model declares."""
        declared = self.model.generation_config.eos_token_id
        ids = declared if isinstance(declared, list) else [declared] if declared is not None else []
        return list(dict.fromkeys([*ids, self.tokenizer.eos_token_id]))
