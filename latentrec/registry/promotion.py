"""Aliases move here and nowhere else: under the lock, with a reason, into a history that the registry keeps.

The history is tags ``promotion.0001``, ``promotion.0002``… on the registered model, one JSON value each:
promotions, refusals, rollbacks and moves by hand. MLflow's pages show it in the descriptions.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict

from latentrec.core import UserError
from latentrec.core.settings import PIPELINE_VARIABLE, RUN_ID_VARIABLE
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.registry.model_registry import CHAMPION, PREVIOUS, Registry
from latentrec.registry.promotion_lock import Lock, lock_root, promotion_lock
from latentrec.registry.promotion_text import PromotionEvent, model_description, version_description

GATE_ACTIONS = ("promoted", "refused")
_TAG_PREFIX = "promotion."
_MAX_REASON = 1500
_logger = logging.getLogger(__name__)


def apply_gate(
    registry: Registry, name: str, version: str, decision: GateDecision, lock: Lock | None = None
) -> PromotionEvent:
    """Do what the gate decided: move ``champion`` (and ``previous`` to its holder), or record why not.

    A champion that is no longer the one that the evaluation compared with is a refusal. A retry of a step
    that was cut off does what is left to do and records the outcome once.

    Args:
        registry: where.
        name: registered model.
        version: the challenger.
        decision: of the gate.
        lock: held already by the caller; ``None``: taken here.
    """
    if lock is None:
        with hold_lock(registry, name) as own:
            return apply_gate(registry, name, version, decision, own)
    lock.record(expects=decision.expected_champion, version=version)
    champion = registry.aliases(name).get(CHAMPION)
    earlier = _gate_event(promotion_history(name, registry), version)
    if earlier is not None and (earlier.action == "refused" or champion == version):
        _set_verdict(registry, name, earlier)
        return earlier
    if not decision.promote:
        return _record_verdict(registry, name, "refused", version, champion, f"refused: {decision.reason}")
    if champion not in (decision.expected_champion, version):
        reason = (
            f"refused: the evaluation compared with {_named(decision.expected_champion)}, and meanwhile "
            f"the champion is {_named(champion)}; evaluate against it and register again"
        )
        return _record_verdict(registry, name, "refused", version, champion, reason)
    if champion != version:
        _move_champion(registry, lock, name, version, champion)
    reason = f"promoted: {decision.reason}"
    return _record_verdict(registry, name, "promoted", version, decision.expected_champion, reason)


def promote(name: str, version: str, reason: str, *, alias: str = CHAMPION) -> PromotionEvent:
    """Move an alias by hand; the version keeps the gate's verdict.

    Raises:
        UserError: no reason, no such version, or the alias points at it already.
    """
    registry = Registry()
    reason = _checked_reason(reason)
    target = registry.by_version(name, version).version
    with hold_lock(registry, name) as lock:
        current = registry.aliases(name).get(alias)
        lock.record(expects=current, version=target)
        if current == target:
            raise UserError(f"{name}@{alias} is version {target} already", code="registry.already_promoted")
        if alias == CHAMPION:
            _move_champion(registry, lock, name, target, current)
        else:
            _set_alias(registry, lock, name, alias, target)
        return _record(registry, name, "moved", alias, target, current, reason)


def rollback(name: str, reason: str) -> PromotionEvent:
    """Give the alias ``champion`` back to the champion before; again and again goes back through history.

    The version that loses the alias is withdrawn: a later rollback does not return to it. ``previous`` then
    points at the champion before the restored one; every version keeps the gate's verdict.

    Raises:
        UserError: no reason, or there is no earlier champion.
    """
    registry = Registry()
    reason = _checked_reason(reason)
    with hold_lock(registry, name) as lock:
        current = registry.aliases(name).get(CHAMPION)
        earlier = _earlier_champions(registry, name, current)
        if not earlier:
            raise UserError(
                f"{name} has no earlier champion to go back to; use --version to name one",
                code="registry.no_earlier_champion",
            )
        target = earlier[-1]
        lock.record(expects=current, version=target)
        _set_alias(registry, lock, name, CHAMPION, target)
        if earlier[:-1]:
            _set_alias(registry, lock, name, PREVIOUS, earlier[-2])
        elif PREVIOUS in registry.aliases(name):
            lock.check()
            registry.client.delete_registered_model_alias(name, PREVIOUS)
        return _record(registry, name, "rolled_back", CHAMPION, target, current, reason)


def champions_in_order(events: Sequence[PromotionEvent]) -> list[str]:
    """Versions that have held ``champion`` and were not withdrawn by a rollback, the current one last."""
    held: list[str] = []
    for event in events:
        if event.alias != CHAMPION:
            continue
        if event.action in ("promoted", "moved") and held[-1:] != [event.version]:
            held.append(event.version)
        elif event.action == "rolled_back":
            while held and held[-1] != event.version:
                held.pop()
            held = held or [event.version]
    return held


def promotion_history(name: str, registry: Registry | None = None) -> list[PromotionEvent]:
    """Every promotion, refusal, rollback and move by hand, oldest first; from the registry alone."""
    from mlflow.exceptions import MlflowException

    registry = registry or Registry()
    try:
        tags = registry.client.get_registered_model(name).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"no registered model is called {name!r}", code="registry.not_found") from None
        raise
    entries = [json.loads(value) for key, value in tags.items() if key.startswith(_TAG_PREFIX)]
    return sorted((PromotionEvent(**entry) for entry in entries), key=lambda event: event.number)


def hold_lock(registry: Registry, name: str) -> AbstractContextManager[Lock]:
    """The lock under which aliases and versions of one registered model change."""
    return promotion_lock(lock_root(registry.tracking_uri), name)


def _earlier_champions(registry: Registry, name: str, current: str | None) -> list[str]:
    """Champions before the current one that are still registered, the latest last."""
    held = champions_in_order(promotion_history(name, registry))
    while held and held[-1] == current:
        held.pop()
    known = {entry.version for entry in registry.versions(name)}
    return [version for version in held if version in known and version != current]


def _gate_event(events: Sequence[PromotionEvent], version: str) -> PromotionEvent | None:
    """What the gate did about a version, if it has been asked."""
    found = [event for event in events if event.version == version and event.action in GATE_ACTIONS]
    return found[-1] if found else None


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
    _show(registry, name, [*history, event])
    return event


def _show(registry: Registry, name: str, events: Sequence[PromotionEvent]) -> None:
    """Copy the history of promotions into the descriptions that MLflow's pages show.

    The tags are the record. An error here is logged and does not undo the promotion.
    """
    client, event = registry.client, events[-1]
    try:
        model = client.get_registered_model(name)
        client.update_registered_model(name, model_description(model.description, events))
        for version in {event.version, event.replaced or event.version}:
            text = client.get_model_version(name, version).description
            client.update_model_version(name, version, version_description(text, version, events))
    except Exception as error:
        _logger.warning("%s: the history is recorded, but its page could not be written (%s)", name, error)


def _record_verdict(
    registry: Registry, name: str, action: str, version: str, replaced: str | None, reason: str
) -> PromotionEvent:
    """Record what the gate did; the verdict stays with the version, whatever happens to the alias later."""
    event = _record(registry, name, action, CHAMPION, version, replaced, reason)
    _set_verdict(registry, name, event)
    return event


def _set_verdict(registry: Registry, name: str, event: PromotionEvent) -> None:
    for key, value in {"gate.verdict": event.action, "gate.reason": event.reason}.items():
        registry.client.set_model_version_tag(name, event.version, key, value)


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
        raise UserError("a reason is needed; it stays in the registry's history", code="config.missing_value")
    return reason.strip()
