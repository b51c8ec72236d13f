"""The rows of data/models.yaml and data/devices.yaml, and the shape that a Hugging Face config stands for.

It loads neither torch nor transformers, and reads no file but those two. `shape_from_config` repeats the defaults
of the transformers 5.23.0 config classes; tests/test_arithmetic_against_transformers.py holds it to them.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, model_validator

from tokbench.arithmetic import ExpertShape, LatentShape, ModelShape
from tokbench.errors import DataError, SpecError

DATA_DIR = Path(__file__).resolve().parent.parent / "data"

# A device whose reported name goes on with one of these is another product than the row it starts like.
VARIANT_WORDS = frozenset({"laptop", "mobile", "max q", "super", "ti", "d", "nvl", "pcie", "ada", "mig"})


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    aliases: tuple[str, ...] = ()
    source_url: str | None = None
    read_on: datetime.date | None = None
    notes: str | None = None


class ModelRow(_Row):
    """One model of data/models.yaml; `config` is its Hugging Face config. `is_gated` None: not known."""

    kind: Literal["model", "test"] = "model"
    hf_id: str | None = None
    is_gated: bool | None = None
    ungated_mirrors: tuple[str, ...] = ()
    license: str | None = None
    published_parameters_b: float | None = None
    config: dict[str, JsonValue]

    @model_validator(mode="after")
    def _check_provenance(self) -> ModelRow:
        if self.kind == "model" and None in (self.hf_id, self.license, self.source_url, self.read_on):
            raise ValueError("a model needs hf_id, license, source_url and read_on; only `kind: test` goes without")
        return self

    @property
    def shape(self) -> ModelShape:
        """The sizes that the closed forms of `tokbench.arithmetic` take."""
        return shape_from_config(self.config, self.name)

    def names(self) -> tuple[str, ...]:
        """Every name that the row answers to."""
        hf_ids = () if self.hf_id is None else (self.hf_id,)
        return (self.name, *self.aliases, *hf_ids, *self.ungated_mirrors)


class PeakTflops(BaseModel):
    """Dense peak rates in 10^12 operations per second; None where no source states one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fp32: float | None = None
    tf32: float | None = None
    fp16: float | None = None
    bf16: float | None = None
    fp8: float | None = None
    fp4: float | None = None
    int8: float | None = None


class DeviceRow(_Row):
    """One device of data/devices.yaml: nominal figures, in the units (10^9 bytes, per second) of its maker."""

    vendor: str
    memory_gb: float | None = None
    memory_type: str | None = None
    memory_bandwidth_gbps: float | None = None
    sram_mb: float | None = None
    sram_bandwidth_gbps: float | None = None
    peak_tflops: PeakTflops = PeakTflops()
    tdp_watts: float | None = None
    launch_year: int | None = None
    list_price_usd: float | None = None
    list_price_source: str | None = None
    other_sources: tuple[str, ...] = ()


RowType = TypeVar("RowType", bound=_Row)


@functools.cache
def load_models(path: Path = DATA_DIR / "models.yaml") -> tuple[ModelRow, ...]:
    """Read every model row. Raises: DataError that names file, row and field."""
    rows = _load_rows(path, ModelRow)
    for row in rows:
        try:
            row.shape  # noqa: B018
        except SpecError as error:
            raise DataError(error.message, file=path.name, row=row.name, field=error.key, fix=error.fix) from error
    return rows


@functools.cache
def load_devices(path: Path = DATA_DIR / "devices.yaml") -> tuple[DeviceRow, ...]:
    """Read every device row. Raises: DataError that names file, row and field."""
    return _load_rows(path, DeviceRow)


def find_model(name: str, rows: Sequence[ModelRow] | None = None) -> ModelRow:
    """Find a model by name, alias, hub id or mirror, in any case. Raises: SpecError with the nearest names."""
    rows = load_models() if rows is None else rows
    by_name = {known.lower(): row for row in rows for known in row.names()}
    wanted = name.strip().lower()
    if wanted in by_name:
        return by_name[wanted]
    near = dict.fromkeys(by_name[key].name for key in difflib.get_close_matches(wanted, by_name, n=5, cutoff=0.4))
    known_names = ", ".join(near) if near else ", ".join(row.name for row in rows)
    raise SpecError(f"unknown model {name!r}", fix=f"use one of: {known_names}; or add a row to data/models.yaml")


def find_device(reported_name: str, rows: Sequence[DeviceRow] | None = None) -> DeviceRow | None:
    """Find the device whose longest name or alias stands in the name that a driver reports; None where none does.

    Case, hyphens and underscores do not matter, word ends do: `A10` is not in `A100`. A variant (Laptop, SUPER, MIG …)
    that the alias does not name is another device, and an alias of two rows names neither.
    """
    reported = _words(reported_name)
    rows = load_devices() if rows is None else rows
    candidates = [(_words(alias), row) for row in rows for alias in (row.name, *row.aliases)]
    found = [(alias, row) for alias, row in candidates if f" {alias} " in f" {reported} "]
    if not found:
        return None
    longest = max((alias for alias, _ in found), key=len)
    matches = {row.name: row for alias, row in found if alias == longest}
    rest = f" {reported} ".replace(f" {longest} ", "  ", 1)
    if len(matches) > 1 or any(f" {word} " in rest for word in VARIANT_WORDS):
        return None
    return next(iter(matches.values()))


@dataclass(frozen=True, slots=True)
class _Family:
    """What a transformers config class takes when a key is absent. `kv_heads` None: as many as query heads."""

    kv_heads: int | None = None
    head_dim: int | None = None  # None: hidden / heads
    attention_bias: bool | None = None  # None: the class has no such option
    sliding_window: int | None = None
    experts_per_token: int | None = None  # None: not a mixture of experts


CONTRADICTION = "config"  # the key of an error about sizes that contradict each other
# Source: the config and modeling classes of transformers 5.23.0.
FAMILIES = {
    "llama": _Family(attention_bias=False),
    "mistral": _Family(kv_heads=8, sliding_window=4096),
    "mixtral": _Family(kv_heads=8, experts_per_token=2),
    "qwen2": _Family(kv_heads=32, sliding_window=4096),
    "qwen3": _Family(kv_heads=32, head_dim=128, attention_bias=False, sliding_window=4096),
    "qwen3_moe": _Family(kv_heads=4, attention_bias=False, sliding_window=4096, experts_per_token=8),
    "deepseek_v3": _Family(attention_bias=False, experts_per_token=8),
    "gpt_oss": _Family(kv_heads=8, head_dim=64, attention_bias=True, sliding_window=128, experts_per_token=4),
}


def shape_from_config(config: Mapping[str, object], name: str) -> ModelShape:
    """Read the sizes out of a Hugging Face config, of transformers 4 (`rope_theta`) or 5 (`rope_parameters`).

    Sizes that every config.json states must be there; the rest defaults as in transformers.
    Raises: SpecError for an architecture that the closed forms do not count, or a key that is missing or wrong.
    """
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:
        raise _unsupported(model_type, "text_config" in config, name)
    keys = _Keys(config, name)
    hidden, heads = keys.count("hidden_size"), keys.count("num_attention_heads")
    bias = family.attention_bias is not None and keys.flag("attention_bias", family.attention_bias)
    # Null is not absent here: it asks for as many as query heads, whatever the class takes when the key is absent.
    kv_heads = heads if family.kv_heads is None or "num_key_value_heads" in config else family.kv_heads
    head_dim = hidden // heads if family.head_dim is None else family.head_dim
    mla = _latent_shape(keys) if model_type == "deepseek_v3" else None
    window_tokens = keys.optional_count("sliding_window", family.sliding_window)
    window_layers = 0 if window_tokens is None else _window_layers(keys, model_type)
    try:
        return ModelShape(
            name=name,
            layers=keys.count("num_hidden_layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=keys.count("num_key_value_heads", kv_heads),
            head_dim=mla.qk_rope_head_dim if mla else keys.count("head_dim", head_dim),
            feed_forward=keys.count("intermediate_size"),
            vocab=keys.count("vocab_size"),
            max_context_tokens=keys.count("max_position_embeddings"),
            is_head_tied=keys.flag("tie_word_embeddings", False),
            has_qkv_bias=bias or model_type == "qwen2",
            has_o_bias=bias,
            has_mlp_bias=model_type == "llama" and keys.flag("mlp_bias", False),
            has_qk_norm=model_type in ("qwen3", "qwen3_moe"),
            has_sinks=model_type == "gpt_oss",
            window_layers=window_layers,
            window_tokens=window_tokens if window_layers else None,
            experts=_expert_shape(keys, model_type, family.experts_per_token),
            mla=mla,
        )
    except ValueError as error:
        raise SpecError(f"{name}: {error}", key=CONTRADICTION, fix="sizes that go together in its config") from error


class _Keys:
    """Typed reading of one config."""

    def __init__(self, config: Mapping[str, object], name: str) -> None:
        self._config = config
        self._name = name

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 0, where null and absent alike mean the default."""
        number = self.optional_count(key, default)
        number = default if number is None else number
        if number is None:
            raise SpecError(f"the config of {self._name} lacks {key}", key=f"config.{key}")
        return number

    def optional_count(self, key: str, default: int | None = None) -> int | None:
        """A whole number of at least 0; absent means the default, null means None."""
        value = self._config.get(key, default)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise SpecError(f"{self._name}: {key} must be a whole number, not {value!r}", key=f"config.{key}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false, where null and absent alike mean the default."""
        value = self._config.get(key)
        if value is not None and not isinstance(value, bool):
            raise SpecError(f"{self._name}: {key} must be true or false, not {value!r}", key=f"config.{key}")
        return default if value is None else value

    def sequence(self, key: str) -> Sequence[object]:
        """A list; empty where it is null or absent."""
        value = self._config.get(key)
        if value is not None and not isinstance(value, list | tuple):
            raise SpecError(f"{self._name}: {key} must be a list, not {value!r}", key=f"config.{key}")
        return () if value is None else value

    def first_of(self, *keys: str) -> int:
        """The count of the first key that is there: transformers renames some between versions."""
        return self.count(next((key for key in keys if key in self._config), keys[0]))


def _latent_shape(keys: _Keys) -> LatentShape:
    return LatentShape(
        q_lora_rank=keys.optional_count("q_lora_rank", 1536),
        kv_lora_rank=keys.count("kv_lora_rank", 512),
        qk_nope_head_dim=keys.count("qk_nope_head_dim", 128),
        qk_rope_head_dim=keys.count("qk_rope_head_dim", 64),
        v_head_dim=keys.count("v_head_dim", 128),
    )


def _expert_shape(keys: _Keys, model_type: str, experts_per_token: int | None) -> ExpertShape | None:
    if experts_per_token is None:
        return None
    layers, dense_layers = keys.count("num_hidden_layers"), 0
    if model_type == "deepseek_v3":
        dense_layers = min(keys.count("first_k_dense_replace", 3), layers)
    if model_type == "qwen3_moe":
        # These may stand anywhere; for every sum it is their number that counts.
        step, dense = keys.count("decoder_sparse_step", 1), keys.sequence("mlp_only_layers")
        dense_layers = sum(layer in dense or (layer + 1) % step != 0 for layer in range(layers))
    if dense_layers == layers:
        return None
    is_gpt_oss, is_deepseek = model_type == "gpt_oss", model_type == "deepseek_v3"
    has_one_width = model_type in ("mixtral", "gpt_oss")
    return ExpertShape(
        experts=keys.first_of("num_local_experts", "num_experts", "n_routed_experts"),
        experts_per_token=keys.count("num_experts_per_tok", experts_per_token),
        feed_forward=keys.count("intermediate_size" if has_one_width else "moe_intermediate_size"),
        shared_experts=keys.count("n_shared_experts", 1) if is_deepseek else 0,
        leading_dense_layers=dense_layers,
        has_router_bias=is_gpt_oss,
        has_correction_bias=is_deepseek,
        has_expert_bias=is_gpt_oss,
    )


def _window_layers(keys: _Keys, model_type: str) -> int:
    layers = keys.count("num_hidden_layers")
    is_qwen_without = model_type.startswith("qwen") and not keys.flag("use_sliding_window", False)
    if is_qwen_without or model_type in ("llama", "deepseek_v3"):
        return 0
    if model_type in ("mistral", "mixtral", "qwen3_moe"):
        return layers
    if layer_types := keys.sequence("layer_types"):
        return sum(kind == "sliding_attention" for kind in layer_types)
    if model_type in ("qwen2", "qwen3"):
        return max(0, layers - keys.count("max_window_layers", 28))
    return (layers + 1) // 2


def _unsupported(model_type: str, has_text_config: bool, name: str) -> SpecError:
    reason = "it wraps a language model, whose text_config may be given alone"
    if not has_text_config:
        what = "norms, soft caps and shared caches" if "gemma" in model_type else "parameters"
        reason = f"the closed forms do not count its {what}"
    fix = f"one of {', '.join(FAMILIES)} is counted; any other model can be measured, but not predicted"
    return SpecError(f"{name}: model_type {model_type!r} is not supported: {reason}", key="config.model_type", fix=fix)


def _words(text: str) -> str:
    return " ".join(re.sub(r"[-_\s]+", " ", text.lower()).split())


def _load_rows(path: Path, row_type: type[RowType]) -> tuple[RowType, ...]:
    """Read the one list of a YAML file, bare or under one key."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read: {error}", file=path.name) from error
    if isinstance(content, dict) and len(content) == 1:
        content = next(iter(content.values()))
    if not isinstance(content, list):
        raise DataError("must hold one list of rows", file=path.name)
    rows: list[RowType] = []
    for position, raw in enumerate(content, start=1):
        label = str(raw.get("name", position)) if isinstance(raw, dict) else str(position)
        try:
            row = row_type.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise DataError(first["msg"], file=path.name, row=label, field=field) from error
        if any(row.name.lower() == other.name.lower() for other in rows):
            raise DataError("the name stands twice", file=path.name, row=label, field="name")
        rows.append(row)
    return tuple(rows)
