"""Argo as KFP sets it up, on a clock of its own: what runs when, and what comes back after a failure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.kfp.compiled import Component, Pipeline
from tests.fakes.kfp.driver import (
    Inputs,
    Installation,
    PodSpec,
    cache_key,
    condition_holds,
    items_of,
    make_pod,
    resolve,
)
from tests.fakes.kfp.nodes import Node, why_unschedulable

DEFAULT_RETRIES = 2
"""KFP's Argo settings give every template two retries, after errors only."""

DRIVER_S = 10.0


@dataclass(frozen=True)
class Attempt:
    """What one pod of a step does.

    Attributes:
        end: ``ok``, ``failed`` (its container exits non-zero: KFP never retries that) or ``lost`` (deleted,
            evicted, node gone: Argo's error).
        seconds: how long it runs.
        message: Argo's.
    """

    end: str = "ok"
    seconds: float = 60.0
    message: str = ""


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    at: float
    step: str
    what: str
    message: str = ""


@dataclass
class Result:
    """What a run came to.

    Attributes:
        state: of the run: ``SUCCEEDED``, ``FAILED``, or ``RUNNING`` where a pod waits for ever.
        handler_state: what the exit handler was told.
        phases: of each step: ``Succeeded``, ``Cached``, ``Failed``, ``Error``, ``Omitted``, ``Pending``.
        pods: every pod of every step, in order.
        events: in order of time.
    """

    state: str = "RUNNING"
    handler_state: str | None = None
    phases: dict[str, str] = field(default_factory=dict)
    pods: dict[str, list[PodSpec]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def messages(self, step: str) -> list[str]:
        """What Argo said of a step's pods."""
        return [event.message for event in self.events if event.step == step and event.message]


@dataclass
class Engine:
    """Runs compiled pipelines.

    Attributes:
        installation: settings around the pipeline.
        nodes: of the cluster; empty: every pod is taken.
        behave: attempts of each step, by name; those that are not named succeed after a minute.
        outputs: output parameters of each step, from its pod's input; the rest get a value of their type.
        terminate_at: second at which a user terminates the run.
        cache: cache key → outputs; shared by the runs of one engine.
    """

    installation: Installation = field(default_factory=Installation)
    nodes: Sequence[Node] = ()
    behave: Mapping[str, Sequence[Attempt]] = field(default_factory=dict)
    outputs: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = field(default_factory=dict)
    terminate_at: float | None = None
    cache: dict[str, dict[str, Any]] = field(default_factory=dict)
    _ids: Any = field(default_factory=lambda: itertools.count(1))
    _runs: Any = field(default_factory=lambda: itertools.count(1))

    def run(self, pipeline: Pipeline, parameters: Mapping[str, Any]) -> Result:
        """Run a pipeline with parameters; those that are absent take the pipeline's defaults."""
        defined = pipeline.root.parameters
        unknown = sorted(set(parameters) - set(defined))
        assert not unknown, f"the API server refuses unknown parameters: {unknown}"
        values = {name: entry.get("defaultValue") for name, entry in defined.items()} | dict(parameters)
        run = _Run(self, pipeline, f"run-{next(self._runs)}", Result())
        phase, _, _ = run.dag(pipeline.root, Inputs(values), 0.0)
        run.result.state = {"Succeeded": "SUCCEEDED", "Pending": "RUNNING"}.get(phase, "FAILED")
        run.result.events.sort(key=lambda event: event.at)
        return run.result


@dataclass
class _Run:
    engine: Engine
    pipeline: Pipeline
    run_id: str
    result: Result
    started: dict[str, int] = field(default_factory=dict)

    def dag(self, component: Component, inputs: Inputs, at: float) -> tuple[str, float, dict[str, Any]]:
        """Run a DAG: (phase, end, outputs of its tasks); siblings of a failed task train on to the end."""
        phases: dict[str, str] = {}
        ends: dict[str, float] = {}
        produced: dict[str, Any] = {}
        for name, task in _in_order(component.tasks):
            needs = task.get("dependentTasks", [])
            start = max((ends[need] for need in needs), default=at)
            is_handler = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
            if not is_handler and any(phases[need] not in ("Succeeded", "Cached") for need in needs):
                waits = any(phases[need] == "Pending" for need in needs)
                phases[name], ends[name] = "Pending" if waits else "Omitted", start
                self._omit(self.pipeline.component_of(task), phases[name])
                continue
            if is_handler and any(phases[need] == "Pending" for need in needs):
                phases[name], ends[name] = "Pending", start
                continue
            phases[name], ends[name], produced[name] = self._task(
                name, task, inputs, produced, start, is_handler
            )
        return _worst([*phases.values()]), max(ends.values(), default=at), produced

    def _task(
        self, name: str, task: dict, dag: Inputs, produced: dict, at: float, is_handler: bool
    ) -> tuple[str, float, dict[str, Any]]:
        component = self.pipeline.component_of(task)
        inputs = resolve(self.pipeline, task, dag, produced)
        at += DRIVER_S
        if component.label is not None:
            return self._step(component, task, inputs, dag, at, is_handler)
        if not condition_holds(task, inputs):
            self._omit(component, "Omitted")
            return "Succeeded", at, {"parameters": {}, "artifacts": {}, "triggered": False}
        passes = items_of(task, inputs)
        if passes is not None:
            return self._loop(component, passes, at)
        phase, end, inner = self._retried(component, inputs, at)
        # A condition that did not trigger leaves its task unfinished in the eyes of the exit handler.
        skipped = any(entry.get("triggered") is False for entry in inner.values())
        told = {"Succeeded": "RUNNING" if skipped else "COMPLETE"}.get(phase, "FAILED")
        status = {
            "state": told,
            "error": {},
            "pipelineTaskName": name,
            "pipelineJobResourceName": f"{self.pipeline.name}-{self.run_id}",
        }
        return phase, end, {"parameters": {}, "artifacts": {}, "status": status}

    def _retried(self, component: Component, inputs: Inputs, at: float) -> tuple[str, float, dict[str, Any]]:
        """A DAG, and again after an error, as the installation's settings say of every template."""
        for attempt in range(DEFAULT_RETRIES + 1):
            phase, end, inner = self.dag(component, inputs, at)
            if phase != "Error" or attempt == DEFAULT_RETRIES or self._is_over(end):
                break
            at = end
        return phase, end, inner

    def _loop(
        self, component: Component, passes: Sequence[Inputs], at: float
    ) -> tuple[str, float, dict[str, Any]]:
        """All passes at once, each a DAG with a driver of its own; their outputs as lists, in order."""
        ran = []
        seen: dict[str, list[str]] = {}
        for given in passes:
            ran.append(self._retried(component, given, at + DRIVER_S))
            for task in component.tasks.values():
                if label := self.pipeline.component_of(task).label:
                    step = self.pipeline.step_of(label)
                    seen.setdefault(step, []).append(self.result.phases[step])
        self.result.phases |= {step: _worst(phases) for step, phases in seen.items()}
        artifacts: dict[str, Any] = {}
        for name, source in component.outputs.items():
            (selected,) = source["artifactSelectors"]
            made = [inner.get(selected["producerSubtask"], {}).get("artifacts", {}) for _, _, inner in ran]
            artifacts[name] = [one[selected["outputArtifactKey"]] for one in made if one]
        ends = max((end for _, end, _ in ran), default=at)
        worst = _worst([phase for phase, _, _ in ran])
        return worst, ends, {"parameters": {}, "artifacts": artifacts, "status": {}}

    def _step(
        self, component: Component, task: dict, inputs: Inputs, dag: Inputs, at: float, is_handler: bool
    ) -> tuple[str, float, dict[str, Any]]:
        engine, pod = (
            self.engine,
            make_pod(self.pipeline, component, inputs, dag, self.run_id, self.engine.installation),
        )
        if is_handler:
            self.result.handler_state = inputs.parameters["outcome"]["state"]
        key = cache_key(self.pipeline, component, inputs)
        cached = task.get("cachingOptions", {}).get("enableCache", False)
        if cached and key in engine.cache:
            self._finish(pod.step, "Cached", at)
            return "Cached", at, engine.cache[key]
        for attempt in range(DEFAULT_RETRIES + 1):
            phase, at = self._pods(pod, task, at, is_handler)
            if phase != "Error" or attempt == DEFAULT_RETRIES or self._is_over(at):
                break
        self._finish(pod.step, phase, at)
        if phase != "Succeeded":
            return phase, at, {}
        made = self._outputs(component, pod)
        if cached:
            engine.cache[key] = made
        return phase, at, made

    def _pods(self, pod: PodSpec, task: dict, at: float, is_handler: bool) -> tuple[str, float]:
        """One level of retries, the step's own where it has any."""
        policy = task.get("retryPolicy") or {}
        limit = int(policy.get("maxRetryCount", DEFAULT_RETRIES))
        wait, factor = _seconds(policy.get("backoffDuration")), float(policy.get("backoffFactor", 1) or 1)
        longest, first = _seconds(policy.get("backoffMaxDuration")), at
        for retry in range(limit + 1):
            phase, at = self._pod(pod, at, is_handler)
            if phase != "Error":
                return phase, at
            if retry == limit:
                return "Error", at
            pause = wait * factor**retry
            if longest and at + pause > first + longest:
                self.result.events.append(Event(at, pod.step, "given up", "Max duration limit exceeded"))
                return "Error", at
            at += pause
            if self._is_over(at) and not is_handler:
                return "Failed", at
        raise AssertionError("unreachable")

    def _pod(self, pod: PodSpec, at: float, is_handler: bool) -> tuple[str, float]:
        result, engine = self.result, self.engine
        result.pods.setdefault(pod.step, []).append(pod)
        if pod.refused:
            result.events.append(Event(at, pod.step, "refused", pod.refused))
            return "Error", at
        why = why_unschedulable(pod, engine.nodes)
        if why:
            result.events.append(Event(at, pod.step, "pending", why))
            over = engine.terminate_at is not None
            return ("Failed", engine.terminate_at or at) if over else ("Pending", at)
        number = self.started.get(pod.step, 0)
        self.started[pod.step] = number + 1
        attempts = engine.behave.get(pod.step, ())
        attempt = attempts[min(number, len(attempts) - 1)] if attempts else Attempt()
        end, phase, message = at + attempt.seconds, attempt.end, attempt.message
        if pod.deadline_s is not None and attempt.seconds > pod.deadline_s:
            end, phase, message = (
                at + pod.deadline_s,
                "failed",
                "Pod was active on the node longer than the deadline",
            )
        if engine.terminate_at is not None and end > engine.terminate_at and not is_handler:
            end, phase, message = max(at, engine.terminate_at), "failed", "main: Error (exit code 143)"
        result.events.append(Event(at, pod.step, "started"))
        words = {"ok": "Succeeded", "failed": "Failed", "lost": "Error"}
        result.events.append(
            Event(end, pod.step, phase, message or ("pod deleted" if phase == "lost" else ""))
        )
        return words[phase], end

    def _outputs(self, component: Component, pod: PodSpec) -> dict[str, Any]:
        made = self.engine.outputs.get(pod.step, lambda _: {})(pod.executor_input)
        defaults = {"STRING": "", "STRUCT": {}, "LIST": [], "BOOLEAN": False}
        parameters = {
            name: made.get(name, defaults.get(spec["parameterType"], 0))
            for name, spec in component.output_parameters.items()
        }
        artifacts = {
            name: {"name": str(next(self.engine._ids)), "uri": f"minio://mlpipeline/{self.run_id}/{name}"}
            for name in component.output_artifacts
        }
        return {"parameters": parameters, "artifacts": artifacts}

    def _is_over(self, at: float) -> bool:
        return self.engine.terminate_at is not None and at >= self.engine.terminate_at

    def _finish(self, step: str, phase: str, at: float) -> None:
        self.result.phases[step] = phase

    def _omit(self, component: Component, phase: str) -> None:
        if component.label is not None:
            self.result.phases[self.pipeline.step_of(component.label)] = phase
        for task in component.tasks.values():
            self._omit(self.pipeline.component_of(task), phase)


def _in_order(tasks: Mapping[str, dict]) -> list[tuple[str, dict]]:
    """Tasks after those that they depend on."""
    found: dict[str, dict] = {}
    while len(found) < len(tasks):
        ready = [
            (name, task)
            for name, task in sorted(tasks.items())
            if name not in found and set(task.get("dependentTasks", [])) <= set(found)
        ]
        assert ready, "the DAG has a circle"
        found |= dict(ready)
    return list(found.items())


def _worst(phases: Sequence[str]) -> str:
    return next((phase for phase in ("Pending", "Error", "Failed") if phase in phases), "Succeeded")


def _seconds(text: str | None) -> float:
    return float(text.rstrip("s")) if text else 0.0
