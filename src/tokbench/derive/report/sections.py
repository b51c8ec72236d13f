"""Puts a report together. Only this module and the `…_section` files beside it word one."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.report.bound_section import bound_sections
from tokbench.derive.report.conditions_section import conditions_sections
from tokbench.derive.report.cost_section import cost_sections
from tokbench.derive.report.document import Document
from tokbench.derive.report.energy_section import energy_sections
from tokbench.derive.report.limits_section import limits_sections
from tokbench.derive.report.material import Material
from tokbench.derive.report.method_section import method_sections
from tokbench.derive.report.opening_section import opening_section
from tokbench.derive.report.statistics_section import statistics_sections
from tokbench.derive.report.time_section import time_sections
from tokbench.derive.report.vendors_section import vendors_sections


def build_document(material: Material, configs: Sequence[str | None]) -> Document:
    """The whole report; `configs` holds the config file of each run, None where it is gone."""
    return Document(
        _title(material),
        (
            opening_section(material),
            *vendors_sections(material),
            *time_sections(material),
            *bound_sections(material),
            *energy_sections(material),
            *cost_sections(material),
            *statistics_sections(material),
            *method_sections(material),
            *conditions_sections(material),
            *limits_sections(material, configs),
        ),
    )


def _title(material: Material) -> str:
    models = list(dict.fromkeys(wording.say_model(cell) for cell in material.cells))
    named = ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    devices = [item.run.device.name if item.run.device else "an unknown device" for item in material.results]
    return f"{named or 'No model'} on {', '.join(dict.fromkeys(devices))}"
