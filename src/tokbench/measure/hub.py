"""The model hub: what of a repository is on this disk, whether the rest may be had, and the download.

It fetches safetensors, JSON and tokenizer files only, never code. No message, record or log of it holds the token: of
an error it repeats the kind and the HTTP status, never the text.
"""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol, cast

from tokbench.errors import PlugError
from tokbench.measure.downloads import Report, free_bytes_at, require_disk, watched
from tokbench.units import BYTES, format_value

CHECK_TIMEOUT_S = 10.0
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
SMALL_SUFFIXES = (".json", ".jinja", ".model", ".txt")
"""Configs, chat templates and tokenizers; `.py` and pickled weights are left where they are."""


class Sibling(Protocol):
    """One file of a repository, as the hub lists it."""

    rfilename: str
    size: int | None


class RepositoryInfo(Protocol):
    """What the hub says about a repository."""

    sha: str | None
    gated: str | bool | None
    siblings: list[Sibling] | None


class HubApi(Protocol):
    """The part of `huggingface_hub.HfApi` that is used."""

    endpoint: str

    def model_info(
        self, repo_id: str, *, revision: str | None, timeout: float | None, files_metadata: bool
    ) -> RepositoryInfo: ...

    def auth_check(self, repo_id: str) -> None: ...

    def snapshot_download(
        self, repo_id: str, *, revision: str | None, cache_dir: Path, allow_patterns: list[str]
    ) -> str: ...

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str | None, cache_dir: Path) -> str: ...


class Repository(NamedTuple):
    """A repository as asked for, and what the catalog knows of it."""

    id: str
    revision: str | None = None
    mirrors: tuple[str, ...] = ()
    """Repositories with the same weights and no gate."""
    is_shape_known: bool = False
    """Random weights of this model need nothing from the hub."""

    @property
    def label(self) -> str:
        return f"{self.id}@{self.revision}" if self.revision else self.id


class Snapshot(NamedTuple):
    """Files of one revision on this disk."""

    folder: Path
    revision: str | None
    """The commit; None for a folder that has none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hub:
    """How the hub is reached in this process; built by `open_hub`, or by hand in tests."""

    api: HubApi
    cache: Path
    is_offline: bool
    has_token: bool
    free_bytes: Callable[[Path], int] = free_bytes_at


def open_hub(environ: Mapping[str, str]) -> Hub:
    """Prepare the hub as `environ` describes it; touches no network.

    Raises: PlugError when huggingface_hub is not installed.
    """
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise PlugError(
            "models of the hub need the package huggingface_hub", fix="pip install 'tokbench[local]'"
        ) from None
    disable_progress_bars()  # its bars would be drawn across the lines of `report`
    token = environ.get("HF_TOKEN") or huggingface_hub.get_token()
    offline = environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or ""
    return Hub(
        api=cast("HubApi", huggingface_hub.HfApi(token=token)),
        cache=hub_cache_folder(environ),
        is_offline=offline.upper() in ("1", "ON", "YES", "TRUE"),
        has_token=bool(token),
    )


def hub_cache_folder(environ: Mapping[str, str]) -> Path:
    """Where the hub's own library keeps its files, so that what a user already has is used."""
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"]).expanduser()
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser() / "hub"
    base = Path(environ["XDG_CACHE_HOME"]) if environ.get("XDG_CACHE_HOME") else Path.home() / ".cache"
    return base.expanduser() / "huggingface" / "hub"


def missing_weights(folder: Path) -> str | None:
    """Say which part of a model folder is missing for loading its weights, None when nothing is."""
    if not (folder / "config.json").is_file():
        return "config.json"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return next((name for name in names if not (folder / name).is_file()), None)
    return None if any(folder.glob("*.safetensors")) else "*.safetensors"


def has_tokenizer(folder: Path) -> bool:
    """Whether a model folder brings its tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def cached_file(hub: Hub, repository: Repository, name: str) -> Path | None:
    """One file of the repository when it is already on this disk."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository.id, name, cache_dir=hub.cache, revision=repository.revision)
    return Path(found) if isinstance(found, str) else None


def cached_config(hub: Hub, repository: Repository) -> Snapshot | None:
    """The folder that holds the repository's config.json when it is already on this disk; weights may be missing."""
    config = cached_file(hub, repository, "config.json")
    return Snapshot(config.parent, config.parent.name) if config is not None else None


def cached_snapshot(hub: Hub, repository: Repository) -> Snapshot | None:
    """The repository's weights when all of them are already on this disk; an interrupted download does not count."""
    cached = cached_config(hub, repository)
    return cached if cached is not None and missing_weights(cached.folder) is None else None


def fetch_config(hub: Hub, repository: Repository) -> Snapshot:
    """The folder with the repository's config.json, fetched when it is not on this disk; no weights are fetched.

    Raises: PlugError when it cannot be had.
    """
    cached = cached_config(hub, repository)
    if cached is not None:
        return cached
    _require_online(hub, repository)
    try:
        _check_access(hub, repository)
        config = hub.api.hf_hub_download(
            repository.id, "config.json", revision=repository.revision, cache_dir=hub.cache
        )
    except _hub_errors() as error:
        _refuse(error, hub, repository)
    return Snapshot(Path(config).parent, Path(config).parent.name)


def fetch_snapshot(hub: Hub, repository: Repository, report: Report) -> Snapshot:
    """The repository's weights, config and tokenizer on this disk, downloaded when they are not all there.

    Raises: PlugError when they cannot be had, naming every way out.
    """
    cached = cached_snapshot(hub, repository)
    if cached is not None and (hub.is_offline or has_tokenizer(cached.folder)):
        return cached
    _require_online(hub, repository)
    try:
        folder = _download(hub, repository, _check_access(hub, repository), report)
    except _hub_errors() as error:
        if cached is not None:
            report(f"{repository.label} is on this disk without a tokenizer, and the hub does not give one")
            return cached
        _refuse(error, hub, repository)
    lacking = missing_weights(folder)
    if lacking is not None:
        raise PlugError(f"{repository.label} was downloaded, but {lacking} is missing", fix="run the command again")
    return Snapshot(folder, folder.name)


def _check_access(hub: Hub, repository: Repository) -> RepositoryInfo:
    """Ask for the listing, once and with a short timeout, before the library's downloads with their many retries."""
    info = hub.api.model_info(repository.id, revision=repository.revision, timeout=CHECK_TIMEOUT_S, files_metadata=True)
    # The listing of a gated repository is public: only auth_check says whether its files may be fetched.
    if info.gated:
        hub.api.auth_check(repository.id)
    return info


def wanted_files(info: RepositoryInfo) -> dict[str, int]:
    """Name and bytes of the files to fetch: those at the repository's root, in one set of weights."""
    root = {file.rfilename: file.size or 0 for file in info.siblings or [] if "/" not in file.rfilename}
    weights = {name: size for name, size in root.items() if name.endswith(".safetensors")}
    # Some repositories hold the same weights twice: as `model-*` for transformers and as `consolidated*`.
    named = {name: size for name, size in weights.items() if not name.startswith("consolidated")}
    small = {name: size for name, size in root.items() if name.endswith(SMALL_SUFFIXES)}
    return (named or weights) | small if weights else {}


def _download(hub: Hub, repository: Repository, info: RepositoryInfo, report: Report) -> Path:
    files = wanted_files(info)
    if not files:
        raise PlugError(
            f"{repository.label} holds no safetensors; pickled weights may run code when loaded and are not fetched",
            fix="name a repository with safetensors, or " + ways_round(repository),
        )
    at_hand = Repository(repository.id, info.sha)
    missing_bytes = sum(size for name, size in files.items() if cached_file(hub, at_hand, name) is None)
    require_disk(missing_bytes, hub.free_bytes(hub.cache), hub.cache)
    report(f"downloading {repository.label}: {format_value(missing_bytes, BYTES)} into {hub.cache}")
    blobs = hub.cache / f"models--{repository.id.replace('/', '--')}" / "blobs"
    with watched(blobs, missing_bytes, report):
        folder = hub.api.snapshot_download(
            repository.id, revision=repository.revision, cache_dir=hub.cache, allow_patterns=sorted(files)
        )
    return Path(folder)


def ways_round(repository: Repository, *, is_hub_there: bool = True) -> str:
    """Every other way to a run when the hub does not give this model."""
    ways = []
    if repository.mirrors and is_hub_there:
        first, *others = repository.mirrors
        more = "".join(f", hf:{mirror}" for mirror in others)
        ways.append(f"`--set model.source=hf:{first}`{more} (mirrors without a gate)")
    ways.append("`--set model.source=path:DIR` (a folder with config.json and safetensors)")
    if repository.is_shape_known:
        ways.append("`--set model.weights=random` (the same shape, labelled in every number)")
    else:
        ways.append("`--set model.source=shape:NAME --set model.weights=random` (a shape of models.yaml)")
    return ", or ".join(ways)


def _require_online(hub: Hub, repository: Repository) -> None:
    if hub.is_offline:
        raise PlugError(
            f"{repository.label} is not complete in {hub.cache}, and HF_HUB_OFFLINE forbids fetching it",
            fix="unset HF_HUB_OFFLINE, or " + ways_round(repository, is_hub_there=False),
        )


def _hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's library raises; its HTTP base changed library between releases, so it is asked for."""
    from huggingface_hub import errors

    http_base = cast("tuple[type[Exception], ...]", errors.HfHubHTTPError.__bases__)
    # A failed transfer is a XetDownloadError since huggingface_hub 2 and was a RuntimeError before.
    transfer = cast("type[Exception]", vars(errors).get("XetDownloadError", RuntimeError))
    return (*http_base, OSError, errors.HFValidationError, transfer)


def _refuse(error: Exception, hub: Hub, repository: Repository) -> NoReturn:
    """Word one failure of the hub; the original is dropped, for its request holds the token."""
    from huggingface_hub import errors

    page = f"{hub.api.endpoint}/{repository.id}"
    around = ways_round(repository)
    label = repository.label
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    # GatedRepoError is a RepositoryNotFoundError: the order of these cases matters.
    if isinstance(error, errors.GatedRepoError) or status == 403:
        why = "the token has no access to it yet" if hub.has_token else "no token was given"
        message, fix = f"{label} is gated, and {why}", f"accept the licence at {page} and set HF_TOKEN, or {around}"
    elif isinstance(error, errors.RevisionNotFoundError):
        message, fix = f"{repository.id} has no revision {repository.revision}", f"see the revisions at {page}"
    elif status == 401 and hub.has_token:
        message, fix = f"the hub refuses the token, or {label} does not exist", f"renew HF_TOKEN, or {around}"
    elif isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        message = f"{label} does not exist on the hub, or is private"
        fix = f"check the spelling; for a private model set HF_TOKEN, or {around}"
    elif isinstance(error, errors.EntryNotFoundError) and status is not None:
        message, fix = f"{label} holds no config.json", f"name a repository that transformers can load, or {around}"
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        message, fix = f"the disk of {hub.cache} is full", "free some space, or set HF_HOME to a larger disk"
    elif status is not None:
        message, fix = f"the hub answered with HTTP {status} for {label}", f"try again later, or {around}"
    elif isinstance(error, ValueError):
        message, fix = f"the hub's library refuses {label} ({type(error).__name__})", f"check the spelling, or {around}"
    else:
        message = f"{label} cannot be fetched: the hub is not reachable ({type(error).__name__})"
        fix = "check the network and HF_ENDPOINT, or " + ways_round(repository, is_hub_there=False)
    raise PlugError(message, fix=fix) from None
