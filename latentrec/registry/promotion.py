"""Aliases move here and nowhere else: under the lock, with a reason, into a history that the registry keeps.

The history is tags ``promotion.0001``, ``promotion.0002``… on the registered model, one JSON value each:
promotions, refusals, rollbacks and moves by hand.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from dataclasses import asdict, dataclass

from latentrec.core import UserError
from latentrec.core.settings import PIPELINE_VARIABLE, RUN_ID_VARIABLE
from latentrec.evaluation.gate import GateDecision
from latentrec.registry.model_registry import CHAMPION, PREVIOUS, Registry
from latentrec.registry.promotion_lock import Lock, lock_root, promotion_lock

_TAG_PREFIX = "promotion."
_MAX_REASON = 1500


@dataclass(frozen=True)
class PromotionEvent:
    """One entry of the history.

    Attributes:
        number: 1, 2, … in order.
        action: ``promoted``, ``refused``, ``rolled_back`` or ``moved`` (by hand).
        alias: that moved, or was to move.
        version: that the event is about.
        replaced: version that the alias pointed at before; ``None``: it pointed at nothing.
        reason: one sentence.
        time: UTC seconds.
        by: who: the pipeline run, or the user of a command.
    """

    number: int
    action: str
    alias: str
    version: str
    replaced: str | None
    reason: str
    time: float
    by: str


def apply_gate(registry: Registry, name: str, version: str, decision: GateDecision) -> PromotionEvent:
    """Do what the gate decided: move ``champion`` (and ``previous`` to its holder), or record why not.

    A champion that is no longer the one that the evaluation compared with is a refusal.
    """
    with _lock(registry, name, decision.expected_champion, version) as lock:
        champion = registry.aliases(name).get(CHAMPION)
        if not decision.promote:
            return _record(registry, name, "refused", CHAMPION, version, champion, decision.reason)
        if champion != decision.expected_champion:
            reason = (
                f"refused: the evaluation compared with {_named(decision.expected_champion)}, and meanwhile "
                f"the champion is {_named(champion)}; evaluate against it and register again"
            )
            return _record(registry, name, "refused", CHAMPION, version, champion, reason)
        _move_champion(registry, lock, name, version, champion)
        return _record(registry, name, "promoted", CHAMPION, version, champion, decision.reason)


def promote(name: str, version: str, reason: str, *, alias: str = CHAMPION) -> PromotionEvent:
    """Move an alias by hand.

    Raises:
        UserError: no reason, no such version, or the alias points at it already.
    """
    registry = Registry()
    reason = _checked_reason(reason)
    target = registry.by_version(name, version).version
    with _lock(registry, name, registry.aliases(name).get(alias), target) as lock:
        current = registry.aliases(name).get(alias)
        if current == target:
            raise UserError(f"{name}@{alias} is version {target} already")
        if alias == CHAMPION:
            _move_champion(registry, lock, name, target, current)
        else:
            _set_alias(registry, lock, name, alias, target)
        return _record(registry, name, "moved", alias, target, current, reason)


def rollback(name: str, reason: str) -> PromotionEvent:
    """Give the alias ``champion`` back to the previous champion; the one that loses it becomes ``previous``.

    Raises:
        UserError: no reason, or there is no previous champion.
    """
    registry = Registry()
    reason = _checked_reason(reason)
    target = registry.aliases(name).get(PREVIOUS)
    if target is None or target == registry.aliases(name).get(CHAMPION):
        raise UserError(f"{name} has no previous champion to go back to; use --version to name one")
    with _lock(registry, name, registry.aliases(name).get(CHAMPION), target) as lock:
        current = registry.aliases(name).get(CHAMPION)
        _move_champion(registry, lock, name, target, current)
        return _record(registry, name, "rolled_back", CHAMPION, target, current, reason)


def promotion_history(name: str, registry: Registry | None = None) -> list[PromotionEvent]:
    """Every promotion, refusal, rollback and move by hand, oldest first; from the registry alone."""
    from mlflow.exceptions import MlflowException

    registry = registry or Registry()
    try:
        tags = registry.client.get_registered_model(name).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"no registered model is called {name!r}") from None
        raise
    entries = [json.loads(value) for key, value in tags.items() if key.startswith(_TAG_PREFIX)]
    return sorted((PromotionEvent(**entry) for entry in entries), key=lambda event: event.number)


def _lock(registry: Registry, name: str, expects: str | None, version: str):
    return promotion_lock(lock_root(registry.tracking_uri), name, expects=expects, version=version)


def _move_champion(registry: Registry, lock: Lock, name: str, version: str, current: str | None) -> None:
    # "previous" first: a crash between the two leaves the champion in its place and nothing forgotten.
    if current is not None and current != version:
        _set_alias(registry, lock, name, PREVIOUS, current)
    _set_alias(registry, lock, name, CHAMPION, version)


def _set_alias(registry: Registry, lock: Lock, name: str, alias: str, version: str) -> None:
    """Move one alias and read it back; a lock that was lost stops before anything moves."""
    lock.check()
    registry.client.set_registered_model_alias(name, alias, version)
    found = registry.aliases(name).get(alias)
    if found != version:
        raise RuntimeError(
            f"{name}@{alias} was set to version {version} and reads back as {_named(found)}: something "
            "else moves aliases of this model without the lock"
        )


def _record(
    registry: Registry, name: str, action: str, alias: str, version: str, replaced: str | None, reason: str
) -> PromotionEvent:
    history = promotion_history(name, registry)
    event = PromotionEvent(
        number=history[-1].number + 1 if history else 1,
        action=action,
        alias=alias,
        version=version,
        replaced=replaced,
        reason=reason[:_MAX_REASON],
        time=round(time.time(), 3),
        by=_who(),
    )
    tag = f"{_TAG_PREFIX}{event.number:04d}"
    registry.client.set_registered_model_tag(name, tag, json.dumps(asdict(event), sort_keys=True))
    verdict = {"gate.verdict": action, "gate.reason": event.reason} if alias == CHAMPION else {}
    for key, value in verdict.items():
        registry.client.set_model_version_tag(name, version, key, value)
    return event


def _who() -> str:
    run_id = os.environ.get(RUN_ID_VARIABLE)
    if run_id:
        return f"{os.environ.get(PIPELINE_VARIABLE) or 'pipeline'} run {run_id}"
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _named(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"


def _checked_reason(reason: str) -> str:
    if not reason.strip():
        raise UserError("a reason is needed; it stays in the registry's history")
    return reason.strip()
