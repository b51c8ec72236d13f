"""What is said of a claim: the verdict of each part and of the whole, with everything that it rests on."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from tokbench.derive.claims.evidence import Resolved
from tokbench.derive.claims.input_rows import Bilingual
from tokbench.derive.claims.resolving import Evaluated
from tokbench.derive.claims.rows import ClaimRow, Half
from tokbench.derive.claims.rules import Rules
from tokbench.derive.claims.values import Rests


class Outcome(enum.Enum):
    """The five things that can be said of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    PARTLY = "partly"
    OPEN = "open"
    UNTESTED = "untested"


class Strength(enum.Enum):
    """How strong the weakest evidence behind a verdict is, the strongest first."""

    MEASURED_AT_SCALE = "measured-at-scale"
    INDEPENDENT = "independent"
    MEASURED_SMALL = "measured-small"
    ONE_SOURCE = "one-source"
    REPLAYED = "replayed-or-projected"
    ARITHMETIC = "arithmetic"


class Because(enum.Enum):
    """Why a part has its outcome; `saying` has the words."""

    RULE = "rule"
    BOTH = "both"
    NEITHER = "neither"
    ONE_SOURCE = "one-source"
    STRADDLES = "straddles"
    NO_EVIDENCE = "no-evidence"
    UNDEFINED = "undefined"
    NOT_TESTED = "not-tested"
    DEADLINE = "deadline"
    DEVICES = "devices"


@dataclasses.dataclass(frozen=True, slots=True)
class PartVerdict:
    """One part of a claim, judged."""

    half: Half
    rules: Rules
    evaluated: Evaluated
    outcome: Outcome
    because: Because
    by_rules: Outcome
    """What the rules alone would say, before a deadline or a single source stops them."""
    single_sources: tuple[str, ...]
    """The inputs that rest on one independent source, where that is what stops it."""
    rests: Rests
    """What decided: that of the rule that holds, else that of both."""
    needs: str | None
    """The command that gets what is missing; None where nothing is missing that could be had."""
    takes: Bilingual | None = None
    """What has to be there for it, beyond a CPU and time; None where nothing is missing, or no more is needed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Contrast:
    """Two inputs that were set against each other, and the conditions that keep them from being alike."""

    one: str
    other: str
    different: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """One claim, judged."""

    claim: ClaimRow
    outcome: Outcome
    parts: tuple[PartVerdict, ...]
    inputs: Mapping[str, Resolved]
    strength: Strength | None
    """None where nothing is known that the verdict could rest on."""
    labels: tuple[str, ...]
    contrasts: tuple[Contrast, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Why values cannot be had, each once."""
        causes = [
            cause
            for part in self.parts
            for truth in (part.evaluated.supports, part.evaluated.refutes)
            for cause in sorted(truth.causes, key=str)
        ]
        return tuple(
            dict.fromkeys(f"{cause.input}: {cause.reason}" if cause.input else cause.reason for cause in causes)
        )

    @property
    def straddling(self) -> tuple[str, ...]:
        """The comparisons that hold at one end of an interval and not at the other."""
        pairs = [(part.evaluated.supports, part.evaluated.refutes) for part in self.parts]
        return tuple(dict.fromkeys(text for pair in pairs for truth in pair for text in truth.straddles))

    @property
    def needs(self) -> tuple[str, ...]:
        """The commands that would settle what is untested."""
        return tuple(dict.fromkeys(part.needs for part in self.parts if part.needs is not None))
