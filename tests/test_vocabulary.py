"""One concept has one name, the field's own: no metaphors in identifiers, docstrings or messages."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("latentrec", "components", "pipeline", "docker")
METAPHORS = re.compile(
    r"(?<![a-z])"
    r"(houses?|doors?|crowns?|sinks?|spools?|spooled|stand[-_]?ins?|equip|left_behind|judge[ds]?|judging|told"
    r"|hand(?:s|ed|ing)?[-_ ](?:over|out|in)|carr(?:y|ies|ied|ying)|travels?|dealt|mend(?:s|ed)?|heirs?"
    r"|spare[ds]?|speaks?|hears?|heard|believed?|swallow(?:s|ed)?|lets? go|the wire"
    r"|nobody|somebody|whoever|strangers?)"
    r"(?![a-z])",
    re.IGNORECASE,
)
"""Words that stood for a component's runtime, a trainer, a logger, a queue, a placeholder, evaluation; and
verbs of people for what programs do: pass, return, contain, report, validate, keep, repair."""

NO_NAMES = {
    *("plan", "plans", "look", "looks", "looked", "room", "rooms", "told", "door", "house"),
    *("judge", "judges", "judged", "judgment", "crown"),
}
"""Words that may stand in a sentence but name nothing: a sampler, an evaluation, a capacity."""

PARALLEL = {"lares", "batch_scoring"}
"""Module names that two layers share by intent: what runs, and the pipeline of the same name."""

COMMANDS = "latentrec/cli"
"""A command's module is named like the step that it runs."""


def python_files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def words_of(path: Path) -> set[str]:
    """Names, text and comments of a file, with the line that each stands in."""
    found = set()
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NAME, tokenize.STRING, tokenize.COMMENT):
            found |= {f"{token.start[0]}: {match.group(0)}" for match in METAPHORS.finditer(token.string)}
    return found


def names_of(path: Path, forbidden: set[str] = NO_NAMES) -> set[str]:
    """Identifiers of a file that hold one of :data:`NO_NAMES` as a word, with the line of each."""
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        words = re.findall(r"[A-Z]?[a-z]+", token.string) if token.type == tokenize.NAME else []
        if forbidden & {word.lower() for word in words}:
            found.add(f"{token.start[0]}: {token.string}")
    return found


@pytest.mark.parametrize("folder", [*FOLDERS, "benchmarks"])
def test_no_metaphor_names_a_thing(folder):
    forbidden = NO_NAMES - ({"plan", "plans", "told"} if folder == "benchmarks" else set())
    for path in sorted((ROOT / folder).rglob("*.py")):
        found = names_of(path, forbidden)
        assert not found, f"{path.relative_to(ROOT)}: {sorted(found)}"


def test_the_search_finds_a_word_inside_a_name_and_leaves_sentences(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('class BatchPlan:\n    """A plan."""\n    rooms_left = explanation = 1\n')
    assert names_of(path) == {"1: BatchPlan", "3: rooms_left"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_metaphor_in_identifiers_docstrings_or_messages(folder):
    for path in python_files():
        if path.relative_to(ROOT).parts[0] == folder:
            assert not words_of(path), f"{path.relative_to(ROOT)}: {sorted(words_of(path))}"


def test_the_search_finds_a_metaphor_in_a_name_a_docstring_and_a_message(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('def register_door():\n    """The house."""\n    raise ValueError("a sink")\n')
    assert words_of(path) == {"1: door", "2: house", "3: sink"}
    path.write_text('def carry(heir):\n    """Handed over to whoever hears."""\n')
    assert words_of(path) == {"1: carry", "1: heir", "2: Handed over", "2: whoever", "2: hears"}


def test_no_two_modules_share_a_name():
    places = defaultdict(list)
    for path in python_files():
        relative = path.relative_to(ROOT)
        if path.name not in ("__init__.py", "__main__.py", "component.py") and COMMANDS not in str(relative):
            places[path.stem].append(str(relative))
    shared = {name: where for name, where in places.items() if len(where) > 1 and name not in PARALLEL}
    assert not shared, shared


def test_no_message_refers_to_documents_that_are_not_in_the_repository():
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for name in ("contracts.md", "systems.md", "platform.md", "architecture.md"):
                    assert name not in node.value, f"{path.relative_to(ROOT)}:{node.lineno} refers to {name}"
