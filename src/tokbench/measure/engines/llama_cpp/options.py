"""What `engine.options` and `engine.attention` may say to llama.cpp. Unknown keys and values are refused."""

from __future__ import annotations

import difflib

from tokbench.errors import PlugError
from tokbench.record.facts import Frozen
from tokbench.record.spec import EngineSpec

ATTENTION = {"flash": True, "plain": False}


class LlamaCppOptions(Frozen):
    """The options of one engine; the defaults are llama.cpp's own."""

    batch_tokens: int = 2048
    """Tokens handed over in one call, of all requests together (`n_batch`)."""
    ubatch_tokens: int = 512
    """Tokens in one forward pass (`n_ubatch`)."""
    flash_attention: bool = True
    """Set by `engine.attention`: flash or plain."""


def read_options(engine: EngineSpec) -> LlamaCppOptions:
    """Options from the config.

    Raises:
        PlugError: a key or a value that this engine does not know.
    """
    known = [name for name in LlamaCppOptions.model_fields if name != "flash_attention"]
    for key, value in engine.options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{near[0]}`? " if near else ""
            raise PlugError(
                f"engine.options: engine 'llama_cpp' has no option {key!r}", fix=f"{hint}options: {', '.join(known)}"
            )
        if type(value) is not int or value < 1:
            raise PlugError(f"engine.options.{key}: {value!r} is no count", fix="1 or more")
    asked = engine.attention or "flash"
    if asked not in ATTENTION:
        raise PlugError(f"engine.attention: llama.cpp has no {asked!r}", fix=f"one of {', '.join(ATTENTION)}")
    return LlamaCppOptions.model_validate({**engine.options, "flash_attention": ATTENTION[asked]})
