"""Prints a Document as one HTML file that needs no network. Sees only the document; jinja2 escapes every text."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from importlib import resources

from tokbench.derive.report.document import Document

TEMPLATE = "report.html.j2"


def render_html(document: Document, images: Mapping[str, bytes]) -> str:
    """The report as one page; `images` holds the PNG of each figure by file name."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files("tokbench").joinpath("data", TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["web_address"] = web_address
    environment.filters["kind"] = lambda block: type(block).__name__
    template = environment.from_string(source)
    embedded = {name: _data_uri(content) for name, content in images.items()}
    return template.render(document=document, images=embedded, anchors=_anchors(document))


def web_address(url: str | None) -> str | None:
    """The address if it is one of the web: a `javascript:` URL never becomes a link."""
    return url if url and url.startswith(("https://", "http://")) else None


def _data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _anchors(document: Document) -> list[str]:
    """One id per section, unique within the page."""
    found: list[str] = []
    for section in document.sections:
        slug = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
        same = sum(1 for name in found if name == slug or re.fullmatch(rf"{slug}-\d+", name))
        found.append(f"{slug}-{same + 1}" if same else slug)
    return found
