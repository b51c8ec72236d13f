"""Mixtures of experts: gain and price over the static batch, what is touched, what grain and offloading change."""

from __future__ import annotations

from tokbench.derive.experts.coverage import find_coverage, find_offloaded
from tokbench.derive.experts.families import find_grains, find_sparsities, find_triples
from tokbench.derive.report.document import Block, Paragraph, Section
from tokbench.derive.report.experts_figures import BATHTUB, COVERAGE, OFFLOAD
from tokbench.derive.report.experts_tables import (
    coverage_table,
    memory_table,
    offload_table,
    sibling_table,
    triple_table,
)
from tokbench.derive.report.material import Material
from tokbench.derive.words import t


def experts_sections(material: Material) -> list[Section]:
    """A section for what the runs hold of it; nothing where no model has routed experts, or none was looked at."""
    parts = [_triples(material), _touched(material), _siblings(material), _offloaded(material)]
    found = [part for part in parts if part is not None]
    if not found:
        return []
    opening = t(
        "A mixture of experts stores all of its experts and works with a few per token. What that gains and costs is "
        "measured beside models that differ in the feed-forward alone."
    )
    return [Section(t("Mixture of experts"), (Paragraph(opening),)), *found]


def _triples(material: Material) -> Section | None:
    triples = find_triples(material.cells)
    if not triples:
        return None
    several = material.has_several_runs
    reading = t(
        "Wider twin / mixture: how many times as long a step of the dense model takes that stores as much; mixture / "
        "active twin: how many times as long a step takes as one of the dense model that computes as much. By bytes: "
        "the same if a step took as long as the bytes that it reads, experts by those that were touched. By both "
        "ceilings: the same if it took as long as the slower of reading these bytes and multiplying, at the rates that "
        "this device reached in this run. Left over: measured beside that, which is the kernels' doing and no verdict "
        "on the bytes."
    )
    blocks: list[Block] = [Paragraph(reading)]
    blocks += [triple_table(triple, several) for triple in triples]
    blocks += [*material.figure(BATHTUB), memory_table(triples, several)]
    return Section(t("Beside dense twins"), tuple(blocks), level=3)


def _touched(material: Material) -> Section | None:
    found = find_coverage(material.cells)
    if not found:
        return None
    blocks: list[Block] = [*material.figure(COVERAGE), coverage_table(found, material.has_several_runs)]
    if any(one.item.cell.conditions.weights == "random" for one in found):
        text = t(
            "Routers with random weights select nearly evenly, the worst case for a small batch: trained ones prefer "
            "some experts, and neighbouring tokens choose alike. Drawn routings show what such habits change."
        )
        blocks.append(Paragraph(text))
    return Section(t("Experts touched per step"), tuple(blocks), level=3)


def _siblings(material: Material) -> Section | None:
    grains, sparsities = find_grains(material.cells), find_sparsities(material.cells)
    if not grains and not sparsities:
        return None
    several = material.has_several_runs
    tables = [sibling_table(grains, several, is_grain=True)] if grains else []
    tables += [sibling_table(sparsities, several, is_grain=False)] if sparsities else []
    return Section(t("Finer experts, and more of them per token"), tuple(tables), level=3)


def _offloaded(material: Material) -> Section | None:
    groups = find_offloaded(material.cells)
    if not groups:
        return None
    blocks: tuple[Block, ...] = (*material.figure(OFFLOAD), offload_table(groups, material.has_several_runs))
    return Section(t("Experts left in the host's memory"), blocks, level=3)
