"""The one file that knows vLLM's names: opens its offline engine in this process and hands on what it says.

Written against vLLM 0.32. Nothing here stamps, waits or decides.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines.vllm.options import Arguments
from tokbench.measure.engines.vllm.session import Delivery, SessionFacts

PROCESS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in this process: a step that returned is work that is done
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",  # the parent has fetched the weights
}
MEMORY_PHRASES = ("available memory", "free memory", "available KV cache memory", "memory for the cache blocks")
"""How vLLM 0.32 words it, as a ValueError, where weights or cache do not fit."""


def open_session(arguments: Arguments) -> VllmSession:
    """Load the weights, make the cache, compile.

    Raises:
        PlugError: vLLM refuses the model or an argument. TrialError: the weights or the cache do not fit (`oom`).
    """
    preloaded = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()  # vLLM writes it for its children
    os.environ.update(PROCESS)
    import torch
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    torch.set_num_threads(arguments.threads)
    try:
        return VllmSession(LLMEngine.from_engine_args(EngineArgs(**engine_args(arguments))), preloaded)
    except ValueError as error:  # pydantic's errors are such too
        raise _refused(error) from error


def engine_args(arguments: Arguments) -> dict[str, Any]:
    """The keywords of vLLM's EngineArgs; what is left to vLLM is left out."""
    devices = arguments.device_indices
    wishes: dict[str, Any] = {
        "max_num_batched_tokens": arguments.max_num_batched_tokens,
        "kv_cache_memory_bytes": arguments.kv_cache_bytes,
        "gpu_memory_utilization": arguments.gpu_memory_utilization,
        "device_ids": None if devices is None else list(devices),
        "tensor_parallel_size": None if devices is None else len(devices),
        "attention_backend": None if arguments.attention is None else _attention(arguments.attention),
        "moe_backend": arguments.experts,
    }
    return {
        "model": arguments.model,
        "skip_tokenizer_init": True,
        "load_format": arguments.load_format,
        "dtype": arguments.dtype,
        "seed": arguments.seed,
        "enforce_eager": arguments.is_eager,
        "max_num_seqs": arguments.max_num_seqs,
        "max_model_len": arguments.max_model_len,
        "enable_prefix_caching": False,
        "trust_remote_code": arguments.trust_remote_code,
        "disable_log_stats": True,
        **{key: value for key, value in wishes.items() if value is not None},
    }


def _attention(name: str) -> Any:
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    try:
        return AttentionBackendEnum[name.upper()]
    except KeyError:
        raise PlugError(
            f"engine.attention: vLLM has no {name!r}",
            fix=f"one of {', '.join(member.name for member in AttentionBackendEnum)}",
        ) from None


def _refused(error: ValueError) -> PlugError | TrialError:
    said = " ".join(str(error).split())[:600]
    if any(phrase.lower() in said.lower() for phrase in MEMORY_PHRASES):
        return TrialError(f"vLLM does not fit: {said}", cause="oom")
    return PlugError(f"vLLM cannot run this: {said}", fix="see engine.options, model.dtype and the worker's log")


class VllmSession:
    """One open vLLM engine."""

    def __init__(self, engine: Any, preloaded: Sequence[str]) -> None:
        self._engine = engine
        self._preloaded = preloaded

    def add(self, request_id: str, prompt: Sequence[int], output_tokens: int) -> str | None:
        """Hand over a request: greedy, exactly so many tokens; why vLLM refuses it, None where it does not."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        greedy = SamplingParams(
            temperature=0.0,
            max_tokens=output_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        try:
            self._engine.add_request(request_id, {"prompt_token_ids": list(prompt)}, greedy)
        except ValueError as error:
            return str(error)
        return None

    def is_busy(self) -> bool:
        """Whether a request is unfinished."""
        return bool(self._engine.has_unfinished_requests())

    def step(self) -> list[Delivery]:
        """One forward pass; the tokens that it brought, by request."""
        return [
            Delivery(each.request_id, tuple(each.outputs[0].token_ids), each.outputs[0].finish_reason)
            for each in self._engine.step()
        ]

    def abort(self, request_id: str) -> None:
        """Give up a request."""
        self._engine.abort_request([request_id])

    @property
    def _runner(self) -> Any:
        """What holds model and cache; None where they are in processes of vLLM's own (a split model)."""
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        executor = self._engine.model_executor
        return executor.driver_worker.worker.model_runner if isinstance(executor, UniProcExecutor) else None

    @property
    def model(self) -> Any:
        """The loaded torch module; None where it is in other processes."""
        return None if self._runner is None else self._runner.model

    @property
    def facts(self) -> SessionFacts:
        """How vLLM really runs, read back from its resolved config."""
        import torch

        config, runner = self._engine.vllm_config, self._runner
        cache = config.cache_config
        dtype = str(config.model_config.dtype).removeprefix("torch.")
        return SessionFacts(
            versions={
                **{name: importlib.metadata.version(name) for name in ("vllm", "torch", "transformers")},
                "python": platform.python_version(),
            },
            dtype=dtype,
            kv_dtype=dtype if cache.cache_dtype == "auto" else str(cache.cache_dtype),
            attention=None if runner is None else runner.attn_groups[0][0].backend.get_name(),
            vocabulary=int(config.model_config.get_vocab_size()),
            threads=torch.get_num_threads(),
            has_graphs=config.compilation_config.cudagraph_mode.name != "NONE",
            cache_tokens=int(cache.num_gpu_blocks) * int(cache.block_size),
            cache_bytes=None
            if runner is None
            else sum(each.numel() * each.element_size() for each in runner.kv_caches),
            environment={name: value for name, value in PROCESS.items() if name.startswith("VLLM_")},
            notes=self._notes(config),
        )

    def _notes(self, config: Any) -> tuple[str, ...]:
        cache, scheduler, compilation = config.cache_config, config.scheduler_config, config.compilation_config
        preloaded = ", ".join(os.path.basename(path) for path in self._preloaded) or "nothing"
        return (
            f"compilation {compilation.mode.name}, CUDA graphs {compilation.cudagraph_mode.name}",
            f"at most {scheduler.max_num_seqs} requests, {scheduler.max_num_batched_tokens} tokens in one forward pass",
            f"chunked prefill {_on(scheduler.enable_chunked_prefill)}, asynchronous scheduling "
            f"{_on(scheduler.async_scheduling)}, prefix cache {_on(cache.enable_prefix_caching)}",
            f"cache of {cache.num_gpu_blocks} pages of {cache.block_size} tokens",
            f"engine core in this process; LD_PRELOAD: {preloaded}",
        )

    def close(self) -> None:
        """Free weights, cache and process groups."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        engine, self._engine = self._engine, None
        if engine is None:
            return
        with contextlib.suppress(RuntimeError):  # a device that is lost tells so again
            engine.engine_core.shutdown()
        del engine
        gc.collect()
        cleanup_dist_env_and_memory()


def _on(value: object) -> str:
    return "on" if value else "off"
