"""What the plugs of meters share: the stamp in the middle of a question, a device's name as a domain, kernel files.

It knows no meter and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from tokbench.errors import PlugError
from tokbench.record.facts import DeviceFacts

T = TypeVar("T")
Clock = Callable[[], int]
Sleep = Callable[[float], None]


class Stamped(NamedTuple, Generic[T]):
    """An answer, and when it was given."""

    value: T
    at_ns: int
    """The middle of the question: the answer is at most half of `read_s` older or younger."""
    read_s: float


def stamp(clock: Clock, question: Callable[[], T]) -> Stamped[T]:
    """Put a question between two looks at the clock."""
    asked = clock()
    value = question()
    answered = clock()
    return Stamped(value, (asked + answered) // 2, (answered - asked) * 1e-9)


def domain_of(device: DeviceFacts) -> str:
    """A device as configs name it, `cuda:1`; its UUID where it has no number there."""
    if device.index is not None:
        return f"{device.kind}:{device.index}"
    return device.uuid or device.pci_bus_id or device.kind


def bus_address(text: str) -> str:
    """A PCI address with the kernel's four digits of domain: NVML and torch write eight."""
    domain, _, rest = text.strip().lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def read_word(path: Path) -> str | None:
    """The text of a small file, None where it is not there or not readable."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def read_number(path: Path) -> int:
    """The whole number in a kernel's file.

    Raises:
        OSError: it cannot be read. PlugError: it holds no number.
    """
    text = path.read_text(encoding="ascii").strip()
    try:
        return int(text)
    except ValueError:
        raise PlugError(f"{path}: no number, but {text[:40]!r}") from None
