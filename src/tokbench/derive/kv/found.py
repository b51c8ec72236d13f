"""What the derivation of the cache finds: plain values, worded and drawn elsewhere. Times in s, sizes in bytes."""

from __future__ import annotations

import dataclasses

from tokbench.derive.evaluate import CellResult


@dataclasses.dataclass(frozen=True, slots=True)
class CacheRow:
    """The cache of one block of a family, as measured and by the formula."""

    cell: CellResult
    block: str
    """The label `attention` of its cells."""
    layers: int | None
    measured_bytes_per_token: float
    """All layers of one sequence, read off the cache object; the same in every cell of the block."""
    predicted_bytes_per_token: float | None
    largest_over_this: float
    """The cache of the family's widest block over this one."""

    @property
    def residual_ratio(self) -> float | None:
        """Measured over predicted, less one; None without a prediction."""
        predicted = self.predicted_bytes_per_token
        return None if predicted is None else self.measured_bytes_per_token / predicted - 1


@dataclasses.dataclass(frozen=True, slots=True)
class ContextLine:
    """Step time over context of one block, all else equal."""

    cell: CellResult
    """The one of the longest context."""
    block: str
    static_batch: int
    contexts: tuple[int, ...]
    """Mean real context of each decode window, in tokens a row."""
    step_s: tuple[float, ...]
    s_per_token: float
    """Slope: what one more cached token in every row adds to a step."""
    interval_s_per_token: tuple[float, float] | None
    r_squared: float
    bytes_per_token: float | None
    """What that token adds to the caches of all rows, as measured."""
    read_bytes_per_s: float | None
    """The read ceiling of the run."""

    @property
    def predicted_s_per_token(self) -> float | None:
        """Those bytes at the ceiling."""
        if self.bytes_per_token is None or self.read_bytes_per_s is None:
            return None
        return self.bytes_per_token / self.read_bytes_per_s

    @property
    def is_told(self) -> bool:
        """Whether the whole interval of the slope lies above 0: noise alone would seldom give such a line."""
        return self.interval_s_per_token is not None and self.interval_s_per_token[0] > 0

    @property
    def implied_bytes_per_s(self) -> float | None:
        """The rate at which the cache would have been read if nothing else grew; None where no growth is told."""
        return None if self.bytes_per_token is None or not self.is_told else self.bytes_per_token / self.s_per_token

    @property
    def residual_ratio(self) -> float | None:
        """Measured slope over the predicted one, less one."""
        predicted = self.predicted_s_per_token
        return None if predicted is None else self.s_per_token / predicted - 1


@dataclasses.dataclass(frozen=True, slots=True)
class ShareTable:
    """The cache's share of weights and cache together, by the formulas: arithmetic, nothing of it was measured."""

    cell: CellResult
    block: str
    weight_bytes: float
    memory_bytes: int | None
    """Of the run's device."""
    contexts: tuple[int, ...]
    rows: tuple[tuple[int, tuple[float, ...]], ...]
    """(users, bytes of all their caches at each context)."""

    def share(self, kv_bytes: float) -> float:
        """Of weights and cache together."""
        return kv_bytes / (self.weight_bytes + kv_bytes)

    def is_fitting(self, kv_bytes: float) -> bool | None:
        """Whether the device holds both; None where its memory is not known."""
        return None if self.memory_bytes is None else self.weight_bytes + kv_bytes <= self.memory_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class GrowthRow:
    """One prompt length of a prefill that was measured at several, beside the next shorter one."""

    cell: CellResult
    kernel: str
    prompt_tokens: int
    prefill_s: float
    extra_bytes: float | None
    time_exponent: float | None
    """log of the times' ratio over log of the lengths'; None in the first row."""
    predicted_time_exponent: float | None
    """The same of the operations that the closed form counts."""
    memory_exponent: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """Some layers of a deeper model, and what its whole depth would take at the same time per layer: extrapolated."""

    cell: CellResult
    """The deepest one."""
    model: str
    whole_layers: int
    layers: tuple[int, ...]
    step_s: tuple[float, ...]
    s_per_layer: float
    interval_s_per_layer: tuple[float, float] | None
    rest_s: float
    """Constant of the line: embedding, head, leading layers of another kind, launches."""
    r_squared: float
    whole_step_s: float | None
    """The line at `whole_layers`; None where more layers were not slower, which only noise can say."""
    interval_whole_step_s: tuple[float, float] | None
    bytes_per_layer: float | None
    """Slope of the bytes that a step has to read, cache included."""
    read_bytes_per_s: float | None

    @property
    def predicted_s_per_layer(self) -> float | None:
        """Those bytes at the read ceiling."""
        if self.bytes_per_layer is None or self.read_bytes_per_s is None:
            return None
        return self.bytes_per_layer / self.read_bytes_per_s

    @property
    def residual_ratio(self) -> float | None:
        """Measured time per layer over the predicted one, less one."""
        predicted = self.predicted_s_per_layer
        return None if predicted is None else self.s_per_layer / predicted - 1


@dataclasses.dataclass(frozen=True, slots=True)
class CacheFindings:
    """All that one run tells of its caches; empty where no cell bears a label `attention`."""

    run_name: str
    rows: tuple[CacheRow, ...]
    lines: tuple[ContextLine, ...]
    shares: tuple[ShareTable, ...]
    growth: tuple[GrowthRow, ...]
