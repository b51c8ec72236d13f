"""Prints a Document as GitHub Markdown. Sees only the document; every text from outside is escaped."""

from __future__ import annotations

import re

from tokbench.derive.report.document import Block, Bullets, Cell, Code, Column, Document, Figure, Item, Paragraph, Table

_SPECIAL = re.compile(r"([\\`*\[\]|])")
_EDGE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_LINE_START = re.compile(r"^(\s*)([#+-]|\d+[.)])(?=\s)")


def render_markdown(document: Document) -> str:
    """The report as one Markdown text."""
    parts = [f"# {escape(document.title)}"]
    for section in document.sections:
        parts.append(f"{'#' * section.level} {escape(section.title)}")
        parts += [_render_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown prints as it stands, on one line."""
    flat = " ".join(text.split())
    flat = re.sub(r"&(?=#?\w+;)", "&amp;", flat)
    flat = _SPECIAL.sub(r"\\\1", flat).replace("<", "&lt;").replace(">", "&gt;")
    return _LINE_START.sub(r"\1\\\2", _EDGE_UNDERSCORE.sub(r"\\_", flat))


def link(text: str, url: str | None) -> str:
    """A link where the address is one of the web, else the text alone."""
    if url is None or not url.startswith(("https://", "http://")):
        return escape(text)
    address = re.sub(r"[\s<>()\\\"|`]", lambda found: f"%{ord(found[0]):02X}", url)
    return f"[{escape(text)}]({address})"


def _render_block(block: Block) -> str:
    match block:
        case Paragraph():
            return _render_paragraph(block)
        case Bullets():
            return "\n".join(f"- {_render_item(item)}" for item in block.items)
        case Table():
            return _render_table(block)
        case Figure():
            return f"![{escape(block.alt)}](figures/{block.file_name})\n\n*{escape(block.caption)}*"
        case Code():
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.text)), default=0))
            return f"{fence}\n{block.text}\n{fence}"


def _render_paragraph(block: Paragraph) -> str:
    text = escape(block.text)
    return {"plain": text, "lead": f"**{text}**", "warning": f"> {text}"}[block.tone]


def _render_item(item: Item) -> str:
    gap = " " if item.text.startswith(" ") else ""
    text = f"**{escape(item.lead)}**{gap}{escape(item.text)}" if item.lead else escape(item.text)
    return text if item.url is None else f"{text} {link(item.link_text or item.url, item.url)}"


def _render_table(table: Table) -> str:
    marks = table.marks()
    head = f"| {' | '.join(_render_head(column) for column in table.columns)} |"
    rule = f"|{'|'.join('---:' if column.align == 'right' else '---' for column in table.columns)}|"
    rows = [f"| {' | '.join(_render_cell(cell, marks) for cell in row)} |" for row in table.rows]
    lines = [f"{escape(table.caption)}\n", head, rule, *rows] if table.caption else [head, rule, *rows]
    notes = "\n".join(f"- ({note.mark}) {escape(note.text)}" for note in table.footnotes())
    return "\n".join(lines) + (f"\n\n{notes}" if notes else "")


def _render_head(column: Column) -> str:
    return escape(f"{column.title} ({column.unit})" if column.unit else column.title)


def _render_cell(cell: Cell, marks: dict[str, str]) -> str:
    text = link(cell.text, cell.url)
    return f"{text} ({marks[cell.note]})" if cell.note else text
