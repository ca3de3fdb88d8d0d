"""Self-contained HTML pages from jinja2 templates: one frame and one style for every report.

A report's template begins with ``{% extends "base.html" %}`` and fills the blocks ``title`` and ``body``.
"""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Undefined

from latentrec.core.redact import redact
from latentrec.core.text import markdown_prose, markdown_text, printable


class ForeignText(str):
    """Text that we did not write, such as a catalogue's title: nothing in it may act as markup."""

    __slots__ = ()


def render_page(package: str, template: str, context: dict[str, Any]) -> str:
    """Render a template of ``package``'s folder ``templates``, everything in it escaped.

    Args:
        package: dotted name of the package that holds the template.
        template: its file name.
        context: its variables; a missing one raises.
    """
    return _render(package, template, context, autoescape=True, finalize=shown)


def render_markdown(package: str, template: str, context: dict[str, Any]) -> str:
    """The same for a Markdown template: sentences do not act as markup, foreign text is escaped whole."""
    return _render(package, template, context, autoescape=False, finalize=shown_in_markdown)


def _render(package: str, template: str, context: dict[str, Any], **how: Any) -> str:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("latentrec.core")]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        **how,
    )
    return environment.get_template(template).render(context)


def shown(value: Any) -> Any:
    """A template's value as every report shows it: no secret of a location, nothing that turns the text round
    or steers a terminal. Markup made by us passes.

    Raises:
        TypeError: a function: the template says ``row.items``, which is a dictionary's own, for
            ``row["items"]``.
    """
    if callable(value) and not isinstance(value, Undefined):
        raise TypeError(f"a template shows {value!r}; write its name in brackets")
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(redact(value), lines=True)
    return value


def shown_in_markdown(value: Any) -> Any:
    """The same for a Markdown template."""
    if isinstance(value, ForeignText):
        return markdown_text(value)
    value = shown(value)
    return markdown_prose(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
