"""Prints a Document as one HTML file that needs no network. Sees only the document; jinja2 escapes every text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

from tokbench.derive.report.document import Document

TEMPLATE = "report.html.j2"


def render_html(document: Document, pictures: Mapping[str, str]) -> str:
    """The report as one page; `pictures` holds the SVG element of each figure by file name, as our own code drew it."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    source = resources.files("tokbench").joinpath("data", TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["web_address"] = web_address
    environment.filters["kind"] = lambda block: type(block).__name__
    template = environment.from_string(source)
    drawn = {name: Markup(svg) for name, svg in pictures.items()}  # canvas escapes their texts
    return template.render(
        document=document, pictures=drawn, sections=list(zip(document.sections, _anchors(document), strict=True))
    )


def web_address(url: str | None) -> str | None:
    """The address if it is one of the web: a `javascript:` URL never becomes a link."""
    return url if url and url.startswith(("https://", "http://")) else None


def _anchors(document: Document) -> list[str]:
    """One id per section, unique within the page; of a title without Latin letters its number."""
    found: list[str] = []
    for number, section in enumerate(document.sections, start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or f"section-{number}"
        same = sum(1 for name in found if name == slug or re.fullmatch(rf"{slug}-\d+", name))
        found.append(f"{slug}-{same + 1}" if same else slug)
    return found
