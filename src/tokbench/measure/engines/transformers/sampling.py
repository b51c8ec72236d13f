"""How the next token is taken from logits: the likeliest one, or one drawn at a temperature. Draws on the device.

Numbers are drawn between passes, into tensors at fixed places: a captured or replayed pass finds new ones each time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

STRIDE = 1_000_003
"""Between the seeds of two repetitions. The generator of a CPU takes the last 32 bits of a seed."""


class Sampling(NamedTuple):
    """What a pass needs to draw one token for every row."""

    temperature: torch.Tensor
    """(1,), float32, above 0."""
    exponential: torch.Tensor
    """(rows, vocabulary), float32: numbers of the unit exponential distribution."""


class Noise:
    """The random numbers of one cell. Every repetition has others; all follow from the seed."""

    def __init__(self, device: torch.device, seed: int, temperature: float) -> None:
        self._generator = torch.Generator(device)
        self._device = device
        self._seed = seed
        self._repetitions = 0
        self._exponential: list[torch.Tensor] = []
        self._uniform: list[torch.Tensor] = []
        self.temperature = torch.full((1,), temperature, dtype=torch.float32, device=device)

    def exponential(self, *shape: int) -> torch.Tensor:
        """A place for numbers of the unit exponential distribution, float32; `refill` draws them."""
        self._exponential.append(torch.ones(shape, dtype=torch.float32, device=self._device))
        return self._exponential[-1]

    def uniform(self, *shape: int) -> torch.Tensor:
        """A place for numbers from [0, 1), float32; `refill` draws them."""
        self._uniform.append(torch.zeros(shape, dtype=torch.float32, device=self._device))
        return self._uniform[-1]

    def sampling(self, rows: int, vocabulary: int) -> Sampling:
        """What one pass needs."""
        return Sampling(self.temperature, self.exponential(rows, vocabulary))

    def begin(self) -> None:
        """Start another repetition and draw its first numbers."""
        self._generator.manual_seed((self._seed + self._repetitions * STRIDE) % 2**32)
        self._repetitions += 1
        self.refill()

    def restart(self, repetition: int = 0) -> None:
        """Let the next repetition be that one, the first unless said otherwise."""
        self._repetitions = repetition

    def refill(self) -> None:
        """Draw all numbers anew. Never waits for the device."""
        for place in self._exponential:
            place.exponential_(generator=self._generator)
        for place in self._uniform:
            place.uniform_(generator=self._generator)


def open_noise(device: torch.device, seed: int, temperature: float) -> Noise | None:
    """Random numbers for a temperature; None at 0, where the likeliest token is taken."""
    return Noise(device, seed, temperature) if temperature > 0 else None


def distribution(logits: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """softmax(logits / temperature) over the last axis, in float32."""
    return torch.softmax(logits.float() / temperature, -1)


def draw(weights: torch.Tensor, exponential: torch.Tensor) -> torch.Tensor:
    """One index of the last axis, kept as an axis, with a chance in proportion to its weight.

    The first of independent exponential clocks to ring, each as fast as its weight: no sum and no search.
    Source: Maddison et al. 2014, arXiv:1411.0030 (the Gumbel-max trick, here without logarithms).
    """
    return (weights / exponential).argmax(-1, keepdim=True)


def take(logits: torch.Tensor, sampling: Sampling | None) -> torch.Tensor:
    """The next token of every row, (rows, 1), from `logits`, (rows, vocabulary)."""
    if sampling is None:
        return logits.argmax(-1, keepdim=True)
    return draw(distribution(logits, sampling.temperature), sampling.exponential)
