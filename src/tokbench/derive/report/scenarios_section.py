"""Words how long chained and short requests take: predicted at our and at published speeds, two run for real."""

from __future__ import annotations

from tokbench.derive import wording
from tokbench.derive.report.document import Block, Cell, Column, Paragraph, Section, Table
from tokbench.derive.scenarios import WORKS, Check, Scenarios, Speed
from tokbench.derive.words import t
from tokbench.units import format_number, format_value, unit_of

SECONDS = "s"
PROMISED = 0.1
"""How far a prediction may lie from what was measured, by the claim's rule."""


def scenarios_sections(found: Scenarios) -> list[Section]:
    """One table of times, and one of the checks; nothing without records of the cells."""
    if not found.predictions:
        return []
    blocks: list[Block] = [Paragraph(_say_method()), _times(found)]
    if found.checks:
        blocks.append(_checks(found.checks))
    return [Section(t("Chained and short requests"), tuple(blocks))]


def _say_method() -> str:
    return t(
        "Predicted: the first token, then the other ones over speed, for each call of a chain. Our first token follows "
        "from the prompt's length, a vendor's is what it publishes, whatever the prompt. Ours has no network and no "
        "queue; the models differ. These are projections but for the calls that were run."
    )


def _times(found: Scenarios) -> Table:
    speeds = list(dict.fromkeys(prediction.speed for prediction in found.predictions))
    times = {(item.work, item.speed): item.seconds for item in found.predictions}
    columns = [
        Column(t("At the speed of")),
        *(Column(_say_work(index), SECONDS, "right") for index in range(len(WORKS))),
    ]
    rows = [
        (_speed_cell(speed), *(Cell(format_number(times[work, speed], 3), sort=times[work, speed]) for work in WORKS))
        for speed in speeds
    ]
    return Table(tuple(columns), tuple(rows), t("Seconds until the last token of the last call"))


def _say_work(index: int) -> str:
    work = WORKS[index]
    return t(
        "{name}: {calls} x ({prompt} in, {output} out)",
        name=work.name,
        calls=work.calls,
        prompt=work.prompt_tokens,
        output=work.output_tokens,
    )


def _speed_cell(speed: Speed) -> Cell:
    rate = format_value(speed.tokens_per_s, unit_of("tokens/s"))
    return Cell(f"{speed.who}, {rate}", note=speed.conditions)


def _checks(checks: tuple[Check, ...]) -> Table:
    columns = (
        Column(t("One call, run for real")),
        Column(t("Model")),
        Column(t("Predicted"), SECONDS, "right"),
        Column(t("Measured"), SECONDS, "right"),
        Column(t("Off by"), "%", "right"),
    )
    rows = []
    for check in checks:
        error = 100 * check.error_ratio
        note = None if abs(check.error_ratio) <= PROMISED else t("more than the 10 % that the rule allows")
        rows.append(
            (
                Cell(check.work.name),
                Cell(wording.say_model(check.cell)),
                Cell(format_number(check.predicted_s, 3), sort=check.predicted_s),
                Cell(wording.say_value(check.measured), note=wording.say_interval(check.measured)),
                Cell(format_number(error, 2), sort=error, note=note),
            )
        )
    return Table(columns, tuple(rows), t("What two kinds of request took beside their prediction"))
