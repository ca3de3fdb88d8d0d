"""Making reasoning traces: asked of a stronger teacher, or written by template where there is none.

As in RecOne (arXiv 2510.23077, §3.4): the teacher is asked the prompt; where its answer breaks the format
or its rating is wrong, it is asked again with the true rating given, and the *original* prompt is kept
with the new answer. Answers that are still not usable are dropped and counted.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from latentrec.core import UserError, progress
from latentrec.core.config import NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from latentrec.core.redact import redact
from latentrec.data.dataset import Dataset
from latentrec.prompts.rating_examples import RatingExample, RatingTask
from latentrec.prompts.rating_format import FormatFault, RatingScale, parse_answer, render_answer
from latentrec.prompts.rating_prompt import RatingPrompt, RatingPromptSettings
from latentrec.prompts.word_counts import WordTokenizer
from latentrec.storage import check_output_file
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.rating.chat_endpoint import ChatAnswer, ChatEndpoint, EndpointError, RateLimit
from latentrec.training.rating.pretraining_corpus import MATCHES
from latentrec.training.rating.prompt_config import ScaleConfig
from latentrec.training.rating.trace_records import Journal, Trace, is_trace_file, write_traces

TEMPLATE = "template"
PROMPT = RatingPromptSettings("full", 1200, 10, 80, 100)
"""How the teacher is asked; budgets in words."""
HINT = (
    "\nFor your analysis only: the user's true rating was {truth:.1f}. Write the four sections as if you "
    "did not know it, so that they lead to the rating {truth:.1f}."
)


class TracesConfig(ScaleConfig):
    """Settings of trace making."""

    step_name: ClassVar[str] = "traces"

    endpoint: str = Field(TEMPLATE, description="base URL of an OpenAI-compatible service, or 'template'")
    model: str = Field("", description="model that the endpoint is asked for")
    samples: PositiveInt = Field(1000, description="training samples drawn at random")
    tolerance: NonNegativeFloat = Field(
        0.5, description="largest error of a trace's rating before the truth is given"
    )
    temperature: NonNegativeFloat = Field(0.7, description="sampling temperature of the teacher")
    max_tokens: PositiveInt = Field(1024, description="budget of an answer")
    requests_per_minute: NonNegativeFloat = Field(60.0, description="rate limit; 0 for none")
    concurrency: PositiveInt = Field(4, description="requests in flight")
    timeout: PositiveFloat = Field(60.0, description="seconds for one request")
    attempts: PositiveInt = Field(6, description="requests for one answer before giving up")
    backoff: NonNegativeFloat = Field(1.0, description="seconds before the first retry, doubled each time")
    key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    input_price: NonNegativeFloat = Field(
        0.0, description="price of a million tokens read, for the cost shown"
    )
    output_price: NonNegativeFloat = Field(0.0, description="price of a million tokens written")
    max_cost: NonNegativeFloat = Field(0.0, description="stop asking when this is spent; 0 for no limit")
    seed: Seed = Field(42, description="seed of the samples drawn")

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what is no endpoint, an endpoint without a model, and a limit of cost without prices."""
        if self.endpoint != TEMPLATE and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(
                f"endpoint is {redact(self.endpoint)!r}; give the base URL of an OpenAI-compatible service "
                f"(https://…), or '{TEMPLATE}'"
            )
        if self.endpoint != TEMPLATE and not self.model:
            raise ValueError("model is empty; name the model that the endpoint should answer with")
        if self.max_cost and not (self.input_price or self.output_price):
            raise ValueError(
                f"max_cost is {self.max_cost}, but no price is given; set input_price and output_price"
            )
        return self


@dataclass
class TraceReport:
    """What came of it. ``cost`` counts answers of interrupted attempts too; ``paid_now`` does not."""

    traces: int = 0
    regenerated: int = 0
    dropped: int = 0
    unasked: int = 0
    cost: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    paid_now: int = 0
    retries: dict[str, int] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """As numbers, for the run summary."""
        return {name: float(value) for name, value in asdict(self).items() if name != "retries"}

    def __str__(self) -> str:
        """The report in one line, for the log."""
        retries = ", ".join(f"{count} {reason}" for reason, count in sorted(self.retries.items()))
        return (
            f"{self.traces:,} traces ({self.regenerated:,} with the truth given, {self.dropped:,} dropped, "
            f"{self.unasked:,} not asked), {self.prompt_tokens:,} + {self.completion_tokens:,} tokens, "
            f"cost {self.cost:.4f}, retries: {retries or 'none'}"
        )


def make_traces(
    config: TracesConfig,
    *,
    dataset: str | Path,
    output: str | Path,
    metric_logger: MetricLogger = NO_METRICS,
) -> TraceReport:
    """Write a trace file for samples of the training split.

    Interrupted asking is resumed: answers that were paid for stand in ``<output>.journal`` until the file is
    complete.

    Raises:
        UserError: not a rating dataset; the endpoint refuses the request; nothing usable came back.
        EndpointError: the endpoint stopped answering; what was paid for is kept.
    """
    output = check_output_file(output, is_trace_file, inputs=[dataset])
    task = RatingTask(Dataset(dataset))
    examples = task.examples("train", limit=config.samples, seed=config.seed)
    prompt = RatingPrompt(WordTokenizer(), PROMPT, config.scale)
    prompts = {example.row: prompt.render(example).text for example in examples}
    if config.endpoint == TEMPLATE:
        traces = [
            Trace(prompts[e.row], template_answer(e, config.scale), e.rating, e.row, TEMPLATE)
            for e in examples
        ]
        report = TraceReport(traces=len(traces))
    else:
        traces, report = _ask_all(config, examples, prompts, str(output))
    if not traces:
        raise UserError(
            f"{config.endpoint}: no usable trace came back ({report}); see the prompts and the model",
            code="traces.none_usable",
        )
    write_traces(traces, str(output))
    if config.endpoint != TEMPLATE:
        Journal(str(output)).close(remove=True)
    metric_logger.log_metrics({f"traces/{name}": value for name, value in report.figures().items()}, 0)
    return report


def template_answer(example: RatingExample, scale: RatingScale) -> str:
    """A trace without a teacher: what the prompt says of user and item, and the truth.

    The match is the one that names the true rating, so that the text leads to it; it is the cold start of a
    pipeline that has no endpoint, and no reasoning of a stronger model.
    """
    user, item = example.user_mean, example.item_mean
    share = (example.rating - scale.low) / scale.span
    match = MATCHES[round(share * (len(MATCHES) - 1))]
    habit = "rates as most do"
    if user is not None:
        position = (user - scale.low) / scale.span
        habit = "often pleased" if position > 0.75 else "hard to please" if position < 0.5 else habit
    return render_answer(
        f"gives {_said(user)}, {habit}",
        f"gets {_said(item)}",
        match,
        example.rating,
    )


def _ask_all(
    config: TracesConfig, examples: list[RatingExample], prompts: dict[int, str], output: str
) -> tuple[list[Trace], TraceReport]:
    endpoint = ChatEndpoint(
        config.endpoint,
        config.model,
        key_variable=config.key_variable,
        timeout=config.timeout,
        attempts=config.attempts,
        rate=RateLimit(config.requests_per_minute),
        backoff=config.backoff,
    )
    journal = Journal(output)
    report = TraceReport()
    traces: list[Trace] = []
    waiting = list(reversed(examples))
    running: dict[Future[ChatAnswer], tuple[RatingExample, bool, str]] = {}
    failure: BaseException | None = None
    with (
        progress("traces", len(examples), "sample") as bar,
        ThreadPoolExecutor(max_workers=config.concurrency) as pool,
    ):

        def settle(example: RatingExample, hinted: bool, text: str, model: str) -> None:
            """An answer is here: keep it, ask again with the truth, or drop it."""
            answer = parse_answer(text, config.scale)
            usable = (
                not isinstance(answer, FormatFault)
                and abs(answer.rating - example.rating) <= config.tolerance
            )
            if usable:
                traces.append(
                    Trace(prompts[example.row], text.strip(), example.rating, example.row, model, hinted)
                )
                report.traces += 1
                report.regenerated += hinted
            elif not hinted:
                start(example, True)
                return
            else:
                report.dropped += 1
            bar.update(1)

        def start(example: RatingExample, hinted: bool) -> None:
            """Take the answer from the journal, or ask for it."""
            text = prompts[example.row] + (HINT.format(truth=example.rating) if hinted else "")
            key = _key(config, text)
            if (entry := journal.entries.get(key)) is not None:
                _charge(report, config, entry)
                settle(example, hinted, entry["text"], entry["model"])
                return
            if failure is not None or (config.max_cost and report.cost >= config.max_cost):
                report.unasked += 1
                bar.update(1)
                return
            future = pool.submit(
                endpoint.ask, text, key=key, temperature=config.temperature, max_tokens=config.max_tokens
            )
            running[future] = (example, hinted, key)

        while waiting or running:
            while waiting and len(running) < config.concurrency:
                start(waiting.pop(), False)
            done, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set(), set())
            for future in done:
                example, hinted, key = running.pop(future)
                error = future.exception()
                if error is not None:
                    failure = failure or error
                    report.unasked += 1
                    waiting.clear()
                    continue
                entry = {"key": key, **asdict(future.result())}
                journal.add(entry)
                report.paid_now += 1
                _charge(report, config, entry)
                bar.set_postfix_str(f"cost {report.cost:.4f}")
                settle(example, hinted, entry["text"], entry["model"])
    journal.close(remove=False)
    report.retries = dict(endpoint.retries)
    if failure is not None:
        if isinstance(failure, EndpointError):
            raise EndpointError(
                f"{failure}; {len(journal.entries):,} answers are kept in {journal.path}: run again to go on",
                failure.fault,
            ) from None
        raise failure
    return traces, report


def _charge(report: TraceReport, config: TracesConfig, entry: dict) -> None:
    report.prompt_tokens += entry["prompt_tokens"]
    report.completion_tokens += entry["completion_tokens"]
    report.cost += (
        entry["prompt_tokens"] * config.input_price + entry["completion_tokens"] * config.output_price
    ) / 1e6


def _key(config: TracesConfig, text: str) -> str:
    body = "\0".join((config.model, str(config.temperature), str(config.max_tokens), text))
    return hashlib.sha256(body.encode()).hexdigest()


def _said(mean: float | None) -> str:
    return "unknown" if mean is None else f"{mean:.1f}"
