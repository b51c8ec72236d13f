"""What a published figure is of: which model, which machine, one device of it or all. Names alone, no number.

A name that does not settle a question answers it with None or False, never with the likeliest.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from tokbench.derive.published.rows import PRECISION_BITS, PublishedFigure
from tokbench.record.catalog import DeviceRow, find_device, load_devices

PER_DEVICE: Final = "output_tokens_per_s_per_device"
_VARIANT_SUFFIX: Final = re.compile(
    r"(\.gguf|-(instruct|chat|hf|it|instant|versatile|specdec|gguf|awq|gptq"
    r"|bf16|fp16|fp8|fp4|nvfp4|mxfp4|int8|int4|q\d(-k)?(-[0-9sml])?))$"
)


def model_key(name: str) -> str:
    """The name of a model without its owner, its chat or precision suffix and its spelling."""
    key = re.sub(r"^(hf|path|pypi|shape):", "", name.strip().lower()).split("@")[0].rstrip("/").rsplit("/", 1)[-1]
    key = re.sub(r"^([a-z]+)(?=\d)", r"\1-", re.sub(r"[\s_:]+", "-", key).removeprefix("meta-"))
    while (shorter := _VARIANT_SUFFIX.sub("", key)) != key:
        key = shorter
    return key


def is_same_model(ours: str | None, theirs: str | None) -> bool:
    """Whether two names are known to be of one model."""
    return ours is not None and theirs is not None and model_key(ours) == model_key(theirs)


def is_same_width(ours: str | None, theirs: str | None) -> bool:
    """Whether two precisions are known to have as many bits."""
    bits = PRECISION_BITS.get
    return ours is not None and theirs is not None and bits(ours, ours) == bits(theirs, theirs)


@functools.cache
def device_of(system: str) -> str | None:
    """The name in devices.yaml of the device that a system or a driver names; None where no row is meant, or several.

    Raises:
        DataError: a row of devices.yaml is wrong.
    """
    row = find_device(system, _rows())
    return None if row is None else row.name


def generation_of(figure: PublishedFigure) -> str:
    """The generation of its system: the device where the rows know it, else the words of the source."""
    return figure.device or device_of(figure.system) or " ".join(figure.system.lower().split())


def is_per_device(figure: PublishedFigure) -> bool:
    """Whether the figure is of one device of the system: the system's speed over the number of its devices."""
    return figure.metric == PER_DEVICE


@functools.cache
def _rows() -> tuple[DeviceRow, ...]:
    return load_devices()
