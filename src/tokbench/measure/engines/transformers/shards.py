"""A model's weights split over the ranks of a process group, by transformers' own plan. Starts no process.

Every rank holds its part of each matrix and a copy of what the plan does not split (norms, routers).
Source: transformers 5.23, distributed/mixin.py and distributed/tensor_parallel.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.parallel import check_even

COLLECTIVE_STYLES = frozenset(
    {
        "all_reduce",
        "colwise_gather_output",
        "colwise_rep",
        "embedding_colwise",
        "embedding_rowwise",
        "moe_tp_experts",
        "rowwise",
        "rowwise_rep",
        "rowwise_split_input",
    }
)
"""Styles whose modules end in one all-reduce or all-gather: the forward hooks of distributed/tensor_parallel.py."""
LAYER_NUMBER = re.compile(r"\.\d+(?=\.|$)")
WHOLE_TYPES = ("float32", "bfloat16", "float16")


def ranks_of(request: EngineRequest) -> int:
    """Processes that hold the model together; 1 where it is not split."""
    return max(len(request.devices), 1)


def check_request(request: EngineRequest) -> None:
    """Refuse what cannot be split.

    Raises:
        PlugError: packed or quantised weights, or a number of heads that is no multiple of the number of ranks.
    """
    if request.model.dtype not in WHOLE_TYPES:
        raise PlugError(
            f"weights in {request.model.dtype} cannot be split over devices", fix="model.dtype=bfloat16, or one device"
        )
    if request.config_json is not None:
        fields = json.loads(request.config_json)
        _check_plan(fields)
        check_even(fields, ranks_of(request))


def _check_plan(fields: dict[str, Any]) -> None:
    """Refuse a model that transformers would copy to every device: gpt-oss has a plan for its experts alone (5.23)."""
    from transformers import CONFIG_MAPPING

    kind = str(fields.get("model_type"))
    if kind not in CONFIG_MAPPING:
        return  # code that comes with the weights: transformers tells whether it has a plan
    config = CONFIG_MAPPING[kind]()
    if not config.get_text_config(decoder=True).base_model_tp_plan:
        raise PlugError(f"transformers has no plan that splits a {kind} model over devices", fix="name one device")


def split_option(ranks: int) -> dict[str, Any]:
    """What `from_pretrained` is told, so that every rank reads its own part of the files."""
    return {"distributed_config": _plan(ranks)}


def _plan(ranks: int) -> Any:
    from transformers.distributed.configuration_utils import DistributedConfig

    return DistributedConfig(tp_size=ranks, tp_plan="auto")


def empty_model(build: Callable[[], Any]) -> Any:
    """A model whose parameters take no memory yet; what it computes from its config alone is real."""
    from accelerate import init_empty_weights
    from transformers.initialization import no_init_weights

    with init_empty_weights(include_buffers=False), no_init_weights():
        return build()


def split_model(model: Any, ranks: int) -> Any:
    """Give an empty model the plan's placements and forward hooks; nothing is allocated."""
    plan, _, meshes = type(model).prepare_distribute_model(_plan(ranks))
    model = type(model).maybe_distribute_model(model, plan, meshes)
    model.tie_weights()
    return model


@torch.no_grad()
def draw_parts(model: Any, request: EngineRequest, scale: float) -> None:
    """Allocate and draw this rank's part of every parameter: N(0, scale), norms with ones.

    Copies are drawn alike on all ranks, parts apart. The whole of a matrix is nowhere.
    """
    device = torch.device(request.device)
    copies, parts = (torch.Generator(device).manual_seed(seed) for seed in (request.seed, _part_seed(request.seed)))
    made: dict[int, torch.nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                is_norm = "norm" in f"{path.rpartition('.')[2]}.{name}"
                generator = parts if isinstance(parameter, DTensor) else copies
                tensor = torch.empty(local(parameter).shape, dtype=parameter.dtype, device=device)
                tensor.fill_(1.0) if is_norm else tensor.normal_(0.0, scale, generator=generator)
                made[id(parameter)] = torch.nn.Parameter(_placed(tensor, parameter), requires_grad=False)
            module.register_parameter(name, made[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            is_kept = name not in module._non_persistent_buffers_set
            module.register_buffer(name, buffer.to(device), persistent=is_kept)


def _part_seed(seed: int) -> int:
    """Another seed on every rank, and none of them the copies'."""
    return (seed + 1) * 100_003 + torch.distributed.get_rank()


def _placed(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """A local part as the distributed tensor that `like` is; a copy as it is."""
    if not isinstance(like, DTensor):
        return tensor
    return DTensor.from_local(
        tensor, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a distributed tensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def copied_bytes(model: Any) -> int:
    """Bytes of what is not split: every rank holds them."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values() if not isinstance(tensor, DTensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def collectives_per_step(model: Any, ranks: int) -> int:
    """All-reduces and all-gathers of one forward pass, counted off the plan.

    transformers 5.17 keeps it as it is written, with * for the number of a layer; 5.23 resolves it to names of modules.
    """
    names = [name for name, _ in model.named_modules()]
    if hasattr(model, "_resolve_parallel_plans"):
        plan = model._resolve_parallel_plans(_plan(ranks))[0]
    else:
        plan, names = model.tp_plan, [LAYER_NUMBER.sub(".*", name) for name in names]
    return sum(plan.get(name) in COLLECTIVE_STYLES for name in names)
