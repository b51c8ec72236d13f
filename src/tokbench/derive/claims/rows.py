"""Claims as rows: what somebody said, what a verdict would rest on, and the two rules. No row holds a verdict.

The rows lie in `data/claims/*.yaml`; docs/design/claims.md tells how one is written.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from tokbench.derive.claims.input_rows import Bilingual, Input, Name, StatedQuantity, StrictRow, freeze
from tokbench.derive.published.sheet import Day, FieldError, Slug, Text
from tokbench.record.catalog import DATA_DIR

CLAIMS_DIR: Final = DATA_DIR / "claims"
AWAITED: Final = CLAIMS_DIR / "awaited.yaml"

Topic = Literal[
    "throughput",
    "speculative",
    "hardware",
    "latency",
    "perception",
    "cost",
    "software",
    "moe",
    "attention",
    "precision",
    "reasoning",
    "energy",
    "edge",
]


class Half(StrictRow):
    """One part of a claim: its own rules over the claim's inputs."""

    name: Slug
    says: Bilingual
    let: dict[Name, Text] = Field(default_factory=dict)
    supports_if: Text
    refutes_if: Text
    needs: Text | None = None
    takes: Bilingual | None = None
    """What must be there that not every machine has, or that nobody has published; None: a CPU and time."""
    deadline: Day | None = None


class RulesBefore(StrictRow):
    """The rules in words, as they were fixed first, and what was repaired since."""

    supports_if: Text
    refutes_if: Text
    why: Text


class ClaimRow(StrictRow):
    """One claim."""

    id: Slug
    topic: Topic
    priority: Literal[1, 2, 3]
    document: Text
    statement: Text
    statement_zh: Text
    attributed_to: Text
    kind: Literal["published", "arithmetic", "local", "vendor-access"]
    quantities: dict[Name, StatedQuantity] = Field(default_factory=dict)
    inputs: dict[Name, Input]
    let: dict[Name, Text] = Field(default_factory=dict)
    supports_if: Text | None = None
    refutes_if: Text | None = None
    parts: Annotated[tuple[Half, ...], BeforeValidator(freeze)] = ()
    against: Bilingual
    rules_before: RulesBefore
    needs: Text | None = None
    takes: Bilingual | None = None
    deadline: Day | None = None
    file: str = "claims"
    """Where it was read; whoever loads it writes this, over anything that stands there."""

    @model_validator(mode="after")
    def _check_rules(self) -> ClaimRow:
        own = (self.supports_if, self.refutes_if)
        if self.parts and (own != (None, None) or self.let or self.deadline):
            raise FieldError("parts", "let, rules and deadline stand in the parts, or in the claim without parts")
        if not self.parts and None in own:
            raise FieldError("supports_if", "both rules are needed, or parts that have them")
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise FieldError("parts", "two parts have one name")
        return self

    def halves(self) -> tuple[Half, ...]:
        """The parts; a claim without them is one part, named as the claim."""
        if self.parts or self.supports_if is None or self.refutes_if is None:
            return self.parts
        says = Bilingual(en=self.statement, zh=self.statement_zh)
        rules = (self.supports_if, self.refutes_if)
        return (
            Half(name=self.id, says=says, let=self.let, supports_if=rules[0], refutes_if=rules[1]).model_copy(
                update={"needs": self.needs, "takes": self.takes, "deadline": self.deadline}
            ),
        )
