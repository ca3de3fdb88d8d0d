"""Writes each component's README from its interface, so that the two cannot drift apart."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from latentrec.core import Config
from latentrec.core.config import default_text, fields_of, kind_of

HERE = Path(__file__).parent
COMMANDS = dict.fromkeys(("list_shards", "score_shard", "merge_shards"), "latentrec batch-score --help")
COMMANDS["roll_out"] = "make serve-manifest"
"""What is typed instead of components that have no command of their own name."""


def component_names() -> list[str]:
    """Folders that hold a component."""
    return sorted(path.parent.name for path in HERE.glob("*/component.py"))


def load(name: str) -> Any:
    """The component of one folder."""
    return getattr(importlib.import_module(f"components.{name}.component"), name)


def readme(name: str) -> str:
    """The README of one component: what it does, image, command, inputs, outputs."""
    component = load(name)
    spec = component.component_spec
    image = spec.implementation.container.image.rsplit("/", 1)[-1].split(":")[0].split("@")[0]
    module = importlib.import_module(f"components.{name}.component")
    lines = [f"# {name}", "", str(module.__doc__).strip().split("\n")[0], "", str(spec.description), ""]
    lines += [f"Image: `{image}`. By hand: `{_command(name)}`.", ""]
    lines += ["| input | type | default | |", "|---|---|---|---|"]
    for key, entry in (spec.inputs or {}).items():
        default = "required" if not entry.optional else f"`{entry.default!r}`"
        kind = f"list of {_kind(entry.type)}" if entry.is_artifact_list else _kind(entry.type)
        lines.append(f"| `{key}` | {kind} | {default} | {_line(entry.description)} |")
    if spec.outputs:
        lines += ["", "| output | type | |", "|---|---|---|"]
        for key, entry in spec.outputs.items():
            lines.append(f"| `{key}` | {_kind(entry.type)} | {entry.description or ''} |")
    if "config" in (spec.inputs or {}):
        from latentrec.steps.parameters import STAGE_2, config_class

        for step in sorted(STAGE_2.values()) if name == "stage_2" else [name]:
            config = config_class(step)
            lines += ["", f"Fields of `config` (`{config.__name__}`):", "", *field_table(config)]
    return "\n".join(lines) + "\n"


def field_table(config: type[Config]) -> list[str]:
    """A configuration's fields as a Markdown table: name, type, default, meaning."""
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for name, field in fields_of(config).items():
        kind = kind_of(field).name.replace("|", "\\|")
        lines.append(f"| `{name}` | {kind} | {default_text(field)} | {field.description} |")
    return lines


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _command(name: str) -> str:
    return COMMANDS.get(name, f"latentrec {name.replace('_', '-')} --help")


def _kind(name: str) -> str:
    return name.split("@")[0].removeprefix("system.")


def main() -> None:
    """Write the README of every component."""
    for name in component_names():
        (HERE / name / "README.md").write_text(readme(name), encoding="utf-8")


if __name__ == "__main__":
    main()
