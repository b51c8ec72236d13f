"""transformers' own assisted generation, its rounds counted: a second implementation to set beside our loop.

One prompt at a time, the likeliest token, a cache that grows: more it does not allow. Never in the window of a cell.
Source: transformers 5.23, generation/utils.py `_assisted_decoding`, generation/candidate_generator.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from tokbench.errors import TrialError
from tokbench.record.spec import SpeculationSpec

NGRAM_MAX = 3
"""As in our own prompt lookup, so that both look for the same."""


class Assisted(NamedTuple):
    """One prompt worked through."""

    tokens: tuple[int, ...]
    """Those made, prompt left out."""
    drafted: tuple[int, ...]
    """Round by round."""
    accepted: tuple[int, ...]
    """Those among them that were kept; the last round is cut at the end."""
    duration_s: float
    """Prompt included: the first round verifies while it reads it."""


class _Counted:
    """What the rounds of one generation drafted and kept."""

    def __init__(self) -> None:
        self.drafted: list[int] = []
        self.accepted: list[int] = []

    def watch(self, generator: Any) -> Any:
        """The same generator of candidates, which also tells here what it did."""
        get, update = generator.get_candidates, generator.update_candidate_strategy

        def counted_get(input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            found = get(input_ids, *args, **kwargs)
            self.drafted.append(found[0].shape[1] - input_ids.shape[1])
            return found

        def counted_update(input_ids: torch.Tensor, scores: Any, num_matches: int) -> Any:
            self.accepted.append(int(num_matches))
            return update(input_ids, scores, num_matches)

        generator.get_candidates, generator.update_candidate_strategy = counted_get, counted_update
        return generator


@torch.inference_mode()
def generate_assisted(
    model: Any,
    draft: Any,
    prompt: Sequence[int],
    output_tokens: int,
    speculation: SpeculationSpec,
    sync: Callable[[], int],
) -> Assisted:
    """Work through one prompt; `draft` is the model that drafts, None where none does; `sync` gives idle stamps.

    Raises:
        TrialError: γ was not honoured, or the counts do not add up to the tokens.
    """
    counted = _Counted()
    ids = torch.tensor([prompt], dtype=torch.long, device=model.device)
    with _watched(model, counted), _with_gamma(draft if draft is not None else model, speculation.gamma):
        started_at_ns = sync()
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=output_tokens,
            eos_token_id=-1,
            pad_token_id=0,
            disable_compile=True,
            **_candidates(speculation, draft),
        )
        duration_s = (sync() - started_at_ns) * 1e-9
    tokens = tuple(found[0, len(prompt) :].tolist())
    done = Assisted(tokens, tuple(counted.drafted), tuple(counted.accepted), duration_s)
    _check(done, output_tokens, speculation)
    return done


def _candidates(speculation: SpeculationSpec, draft: Any) -> dict[str, Any]:
    """What tells `generate` where drafts come from."""
    if speculation.method == "draft_model":
        return {"assistant_model": draft}
    if speculation.method == "early_exit":
        return {"assistant_early_exit": speculation.options["layers"]}
    longest = speculation.options.get("ngram_max", NGRAM_MAX)
    return {"prompt_lookup_num_tokens": speculation.gamma, "max_matching_ngram_size": longest}


def _check(done: Assisted, output_tokens: int, speculation: SpeculationSpec) -> None:
    """Refuse counts that cannot be true, so that nothing is compared with them."""
    if sum(count + 1 for count in done.accepted) != len(done.tokens) or len(done.tokens) != output_tokens:
        said = f"{len(done.tokens)} tokens of {output_tokens}, accepted by round: {done.accepted}"
        raise TrialError(f"transformers' assisted generation: counts and tokens differ ({said})", cause="engine")
    left = output_tokens
    for drafted, accepted in zip(done.drafted, done.accepted, strict=True):
        wanted = min(speculation.gamma, left - 1)
        is_short = drafted < wanted and speculation.method != "prompt_lookup"
        if drafted > speculation.gamma or is_short:
            said = f"a round drafted {drafted} tokens, not {wanted}"
            raise TrialError(f"transformers' assisted generation did not honour gamma: {said}", cause="engine")
        left -= accepted + 1


@contextlib.contextmanager
def _watched(model: Any, counted: _Counted) -> Iterator[None]:
    """Let every generator of candidates that the model makes be counted."""
    make = model._get_candidate_generator
    model._get_candidate_generator = lambda *args, **kwargs: counted.watch(make(*args, **kwargs))
    try:
        yield
    finally:
        del model._get_candidate_generator


@contextlib.contextmanager
def _with_gamma(drafting: Any, gamma: int) -> Iterator[None]:
    """γ drafts every round: transformers reads that from the config of the model that drafts, and nowhere else."""
    config = drafting.generation_config
    before = (config.num_assistant_tokens, config.num_assistant_tokens_schedule, config.assistant_confidence_threshold)
    _set(config, (gamma, "constant", 0.0))
    try:
        yield
    finally:
        _set(config, before)


def _set(config: Any, values: tuple[Any, Any, Any]) -> None:
    config.num_assistant_tokens, config.num_assistant_tokens_schedule, config.assistant_confidence_threshold = values
