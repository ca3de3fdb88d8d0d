"""MkDocs hooks: pages made from the code, and links that leave the site.

Settings come from the configuration classes, components from their README files: neither can be stale. A link
to a file outside ``docs/`` becomes the file's path: the site holds no copy of it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PYTHON = (
    "latentrec.data",
    "latentrec.catalog",
    "latentrec.models.recommender",
    "latentrec.models.latentr3.model",
    "latentrec.decoding.recommender_loader",
    "latentrec.metrics",
    "latentrec.evaluation.gate",
    "latentrec.evaluation.gate_decision",
    "latentrec.registry.model_registry",
)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")


def settings_page() -> str:
    """Every field of every step: name, type, default, meaning."""
    from latentrec.core.config import fields_of
    from latentrec.steps.parameters import STEPS, config_class

    lines = [
        "# Settings",
        "",
        "One configuration class a step. The same fields are the command's flags (`latentrec STEP --help`),",
        "the keys of a settings file and, after the step's name (`sft.learning_rate`), pipeline settings.",
    ]
    for group in STEPS:
        cls = config_class(group)
        lines += ["", f"## {group}", "", (cls.__doc__ or "").strip().split("\n\n")[0], ""]
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        for name, field in fields_of(cls).items():
            cells = (f"`{name}`", _type_name(field), _default(field), field.description or "")
            escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
            lines.append("| " + " | ".join(escaped) + " |")
    return "\n".join(lines) + "\n"


def _type_name(field: Any) -> str:
    from latentrec.core.config import kind_of

    kind = kind_of(field)
    return kind.name + (", optional" if kind.optional else "")


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{text}`" if text else "empty"


def components_page() -> str:
    """The README of every component, one after the other."""
    pages = sorted((ROOT / "components").glob("*/README.md"))
    texts = [re.sub(r"^(#+)", r"#\1", page.read_text(encoding="utf-8"), flags=re.M) for page in pages]
    return "# Components\n\nOne folder a containerized step under `components/`.\n\n" + "\n".join(texts)


def errors_page() -> str:
    """Every code of a user's error, and when it is raised."""
    from latentrec.core.error_codes import ERROR_CODES

    rows = [f"| `{code}` | {meaning} |" for code, meaning in ERROR_CODES.items()]
    lines = [
        "# Error codes",
        "",
        "Input and configuration that the user can mend end a command with exit code 2 and one message.",
        "Its code is `error_code` in a JSON log line (`LATENTREC_LOG_FORMAT=json`) and in the step's status",
        "file; it stays the same when a message is reworded.",
        "",
        "| code | raised when |",
        "|---|---|",
    ]
    return "\n".join([*lines, *rows]) + "\n"


def python_page() -> str:
    """The public Python interface, from docstrings."""
    return "# Python\n\n" + "\n\n".join(f"::: {module}" for module in PYTHON) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    pages = {
        "settings": settings_page,
        "components": components_page,
        "errors": errors_page,
        "python": python_page,
    }
    for name, make in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links that leave ``docs/`` into paths."""
    here = (ROOT / "docs" / page.file.src_uri).parent

    def replace(match: re.Match[str]) -> str:
        target = (here / match[3].split("#")[0]).resolve()
        if target.is_relative_to(ROOT / "docs") and target.suffix in {".md", ".svg", ".png", ".html"}:
            return match[0]
        if not target.exists():
            return match[0]  # MkDocs reports it
        return f"{match[2]} (`{target.relative_to(ROOT)}`)" if not match[1] else match[0]

    return _LINK.sub(replace, markdown)
