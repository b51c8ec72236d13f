"""A pipeline that is made, and what OpenVINO says of how it compiled the model. No property is trusted unread."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines.openvino.options import Asked

LOG_LEVEL = "OPENVINO_LOG_LEVEL"
"""At 3 OpenVINO GenAI prints the properties of each model that it compiled; its pipelines show them in no other way."""
HEADING = "Model: LLM with Paged Attention"


def make_pipeline(folder: Path, asked: Asked, num_blocks: int) -> tuple[Any, dict[str, str]]:
    """A pipeline with so many blocks of cache, and the properties that its model was compiled with.

    Raises:
        PlugError: OpenVINO cannot load the model, or computes in another type than it was asked to.
    """
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = num_blocks
    scheduler.enable_prefix_caching = False
    if asked.options.max_batch_tokens is not None:
        scheduler.max_num_batched_tokens = asked.options.max_batch_tokens
    try:
        with _environment(LOG_LEVEL, "3"), _stdout_of_libraries() as said:
            pipeline = openvino_genai.ContinuousBatchingPipeline(
                models_path=str(folder), scheduler_config=scheduler, device="CPU", properties=asked.properties()
            )
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise PlugError(f"OpenVINO cannot load {folder.name}: {lines[-1] if lines else error}") from error
    resolved = read_properties("".join(said))
    check_resolved(asked.properties(), resolved)
    return pipeline, resolved


def read_properties(text: str) -> dict[str, str]:
    """The lines `  NAME: VALUE` that stand under the language model's heading.

    Raises:
        TrialError: there are none.
    """
    _, found, below = text.partition(HEADING)
    resolved = {}
    for line in below.splitlines()[1:]:
        if not line.startswith("  "):
            break
        name, _, value = line.strip().partition(":")
        resolved[name] = value.strip()
    if not found or not resolved:
        raise TrialError("OpenVINO GenAI did not say how it compiled the model", cause="engine")
    return resolved


def check_resolved(asked: Mapping[str, str | int], resolved: Mapping[str, str]) -> None:
    """Refuse a model that was compiled with other properties than were asked for.

    Raises:
        PlugError: the first such property, e.g. a type that this CPU has no instructions for.
    """
    for name, value in asked.items():
        if resolved.get(name) != str(value):
            raise PlugError(
                f"OpenVINO compiled the model with {name}={resolved.get(name)}, asked for was {value}",
                fix="another model.dtype or engine.options.kv_dtype: this CPU may not have the one that was asked for",
            )


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _stdout_of_libraries() -> Iterator[list[str]]:
    """A list that holds, once the block is left, the text that native code printed meanwhile."""
    said: list[str] = []
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield said
        finally:
            ctypes.CDLL(None).fflush(None)  # C buffers what goes to a file
            os.dup2(kept, 1)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode("utf-8", "replace"))
