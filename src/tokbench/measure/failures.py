"""What an exception becomes on its way to the parent: a `Failed` with a cause. Catches nothing itself."""

from __future__ import annotations

import traceback
from typing import cast

from tokbench.errors import PlugError, SpecError, TokbenchError, TrialError
from tokbench.measure.messages import Failed
from tokbench.record.observations import FailureCause

OUT_OF_MEMORY_PHRASES = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""As CUDA and HIP, torch's CPU allocator, and cuBLAS and cuDNN word it where the error has no type of its own."""


def failed_by(error: Exception) -> Failed:
    """What the parent is told of an error: its cause, its text, and its traceback unless it is one of ours."""
    cause: FailureCause = "engine"
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, TokbenchError):
        text = error.message
    if isinstance(error, TrialError):
        cause = cast(FailureCause, error.cause)
    elif _is_out_of_memory(error):
        cause = "oom"
    return Failed(
        cause=cause,
        text=text,
        traceback=None if isinstance(error, TokbenchError) else traceback.format_exc(),
        is_refusal=isinstance(error, PlugError | SpecError),
        fix=error.fix if isinstance(error, TokbenchError) else None,
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from (compilers wrap theirs), is memory that ran out."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        if isinstance(seen, MemoryError) or type(seen).__name__ == "OutOfMemoryError":
            return True
        if isinstance(seen, RuntimeError) and any(phrase in text for phrase in OUT_OF_MEMORY_PHRASES):
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False
