"""Puts a report together. Only this module and the `…_section` files beside it word one."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.report.assisted_section import assisted_sections
from tokbench.derive.report.baseline_section import baseline_sections
from tokbench.derive.report.bound_section import bound_sections
from tokbench.derive.report.claims_section import claims_sections
from tokbench.derive.report.conditions_section import conditions_sections
from tokbench.derive.report.cost_section import cost_sections
from tokbench.derive.report.decision_section import decision_sections
from tokbench.derive.report.document import Chrome, Document
from tokbench.derive.report.energy_section import energy_sections
from tokbench.derive.report.experts_section import experts_sections
from tokbench.derive.report.frameworks_section import frameworks_sections
from tokbench.derive.report.joules_section import joules_sections
from tokbench.derive.report.kv_section import kv_sections
from tokbench.derive.report.latency_section import latency_sections
from tokbench.derive.report.limits_section import limits_sections
from tokbench.derive.report.lossless_section import lossless_sections
from tokbench.derive.report.material import Material
from tokbench.derive.report.method_section import method_sections
from tokbench.derive.report.opening_section import opening_section
from tokbench.derive.report.precision_section import precision_sections
from tokbench.derive.report.projection_section import projection_sections
from tokbench.derive.report.reasoning_section import reasoning_sections
from tokbench.derive.report.speculation_section import speculation_sections
from tokbench.derive.report.statistics_section import statistics_sections
from tokbench.derive.report.time_section import time_sections
from tokbench.derive.report.vendors_section import appendix_sections, vendors_sections
from tokbench.derive.report.verify_section import verify_sections
from tokbench.derive.standing import is_cut
from tokbench.derive.words import join, language, t

MAX_MODELS = 3
"""More models than these are counted in the title."""


def build_document(material: Material, configs: Sequence[str | None]) -> Document:
    """The whole report; `configs` holds the config file of each run, None where it is gone."""
    return Document(
        _title(material),
        (
            opening_section(material),
            *decision_sections(material),
            *vendors_sections(material),
            *baseline_sections(material),
            *time_sections(material),
            *latency_sections(material),
            *bound_sections(material),
            *kv_sections(material),
            *experts_sections(material),
            *precision_sections(material),
            *reasoning_sections(material),
            *projection_sections(material),
            *speculation_sections(material),
            *verify_sections(material),
            *lossless_sections(material),
            *assisted_sections(material),
            *frameworks_sections(material.results),
            *claims_sections(material.claims),
            *energy_sections(material),
            *joules_sections(material),
            *cost_sections(material),
            *statistics_sections(material),
            *method_sections(material),
            *conditions_sections(material),
            *limits_sections(material, configs),
            *appendix_sections(material),
        ),
        language(),
        chrome(),
    )


def _title(material: Material) -> str:
    cells = [cell for cell in material.cells if not is_cut(cell)] or material.cells
    models = list(dict.fromkeys(wording.say_model(cell) for cell in cells))
    devices = [item.run.device.name if item.run.device else t("an unknown device") for item in material.results]
    named = join(models[:MAX_MODELS]) if models else t("No model")
    if len(models) > MAX_MODELS:
        named = t("{models} and {count} more", models=named, count=len(models) - MAX_MODELS)
    return t("{models} on {devices}", models=named, devices=join(dict.fromkeys(devices)))


def chrome() -> Chrome:
    """The words of a page that belong to no section."""
    return Chrome(
        contents=t("Contents"),
        theme=t("Theme"),
        automatic=t("auto"),
        light=t("light"),
        dark=t("dark"),
        sort=t("Sort by this column"),
    )
