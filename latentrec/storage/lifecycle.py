"""Rules by which a bucket deletes objects by itself, as far as they reach what lies below a location.

KFP's cache knows an artifact by its name: a hit on one that such a rule has deleted still is a hit, and
the step after it fails. Preflight warns of such rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

S3_GONE = "NoSuchLifecycleConfiguration"


def google_rules(rules: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    """Google's rules that delete live objects below ``name``, each in words.

    Args:
        rules: of the bucket's resource, as ``{"action": …, "condition": …}``.
        name: of the objects, without the bucket.
    """
    found = []
    for rule in rules:
        condition = rule.get("condition", {})
        # Versions that are not live any more, whatever they are called, are nothing that a cache names.
        if rule.get("action", {}).get("type") != "Delete" or condition.get("isLive") is False:
            continue
        if {"numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore"} & set(condition):
            continue
        reached = [p for p in condition.get("matchesPrefix") or [""] if _reaches(p, name)]
        if reached:
            found.append(_in_words(reached[0], condition.get("age"), condition.get("createdBefore")))
    return found


def s3_rules(document: bytes, name: str) -> list[str]:
    """The same of S3's answer to ``GET ?lifecycle``; parts of uploads and old versions do not count."""
    found = []
    tree = ElementTree.fromstring(document)
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
    for rule in tree.iter("Rule"):
        expiration = rule.find("Expiration")
        if rule.findtext("Status") != "Enabled" or expiration is None:
            continue
        days, date = expiration.findtext("Days"), expiration.findtext("Date")
        prefix = next((e.text or "" for e in rule.iter("Prefix")), "")
        if (days or date) and _reaches(prefix, name):
            found.append(_in_words(prefix, days, date))
    return found


def _reaches(prefix: str, name: str) -> bool:
    """Whether objects below ``name`` may begin with ``prefix``."""
    return name.startswith(prefix) or prefix.startswith(name.rstrip("/") + "/") or not name


def _in_words(prefix: str, days: Any, date: Any) -> str:
    when = f"after {days} days" if days is not None else f"from {date} on" if date else "under a condition"
    return f"objects below {prefix!r} {when}" if prefix else f"every object {when}"
