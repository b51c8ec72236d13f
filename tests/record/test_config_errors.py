"""Every wrong config: what, where (file, line, key), and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokbench.errors import ExitCode, SpecError
from tokbench.record.sweep import Config, read_config

LINES = (
    "name: a",
    "model:",
    "  source: shape:tiny-llama",
    "  weights: random",
    "engine:",
    "  kind: fake",
    "workload:",
    "  prompt_tokens: 16",
    "load:",
    "  kind: static_batch",
    "  static_batch: 1",
)


def read(folder: Path, *extra: str, without: str | None = None, overrides: tuple[str, ...] = ()) -> Config:
    path = folder / "c.yaml"
    kept = [line for line in LINES if without is None or without not in line]
    path.write_text("\n".join((*kept, *extra)) + "\n", encoding="utf-8")
    return read_config(path, overrides)


def fault(folder: Path, *extra: str, without: str | None = None, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(SpecError) as caught:
        read(folder, *extra, without=without, overrides=overrides)
    assert ExitCode.SPEC == caught.value.exit_code
    return str(caught.value).replace(str(folder), "")


def test_the_config_that_the_others_are_made_from_is_right(tmp_path: Path) -> None:
    assert "a" == read(tmp_path).run.name


@pytest.mark.parametrize(
    ("without", "extra", "expected"),
    [
        ("weights", ["stopp: {rel_ci: 1}"], "/c.yaml:11: stopp: unknown key\n  fix: did you mean `stop`?"),
        (None, ["stop: {rel_c: 1}"], "/c.yaml:12: stop.rel_c: unknown key\n  fix: did you mean `rel_ci`?"),
        (
            None,
            ["stop: {zzz: 1}"],
            "valid here: blocks, max_repetitions, min_repetitions, rel_ci, sentinel, warmup_cap",
        ),
        (None, ["hardware: x"], "/c.yaml:12: hardware: unknown key"),
        ("source", [], "/c.yaml:2: model.source: a required key is missing\n  fix: add `source: …`"),
        ("name", [], "/c.yaml:1: name: a required key is missing"),
        ("static_batch: 1", ["  static_batch: -1"], "/c.yaml:11: load.static_batch: should be greater than 0, not -1"),
        ("static_batch: 1", ["  static_batch: 1.5"], "load.static_batch: should be a whole number, not 1.5"),
        ("static_batch: 1", ["  static_batch: true"], "load.static_batch: should be a whole number, not true"),
        ("static_batch: 1", ["  static_batch: two"], "load.static_batch: should be a whole number, not 'two'"),
        ("static_batch: 1", ["  static_batch:"], "load.static_batch: should be a whole number, not empty"),
        ("static_batch: 1", ["  static_batch: {a: 1}"], "load.static_batch: should be a whole number, not a mapping"),
        ("static_batch: 1", ["  static_batch: []"], "load.static_batch: the list is empty: there is nothing to sweep"),
        ("static_batch: 1", ["  static_batch: 8-1+1"], "the range '8-1+1' holds no value"),
        ("static_batch: 1", ["  static_batch: 1-8+0"], "the range '1-8+0' never gets to its end"),
        ("static_batch: 1", ["  static_batch: 1-8*1"], "the range '1-8*1' never gets to its end"),
        ("static_batch: 1", ["  static_batch: 0-8*2"], "the range '0-8*2' never gets to its end"),
        ("static_batch: 1", ["  static_batch: 1-max*1"], "the range '1-max*1' never gets to its end"),
        ("static_batch: 1", ["  static_batch: 1-999999999999999999+1"], "holds more than 5000 values"),
        ("static_batch: 1", ["  static_batch: [1, 2-max*2]"], "a range up to `max` stands alone, not in a list"),
        ("static_batch: 1", ["  concurrency: 4"], "/c.yaml:11: load.concurrency: unknown key for kind `static_batch`"),
        ("static_batch: 1", ["  concurrency: 4"], "fix: valid here: `kind`, `static_batch`"),
        ("prompt_tokens", ["device: 5"], "/c.yaml:11: device: should be text, not 5"),
        ("kind: static", ["  kind: closd"], "/c.yaml:11: load.kind: should be one of"),
        ("kind: static", ["  kind: closd"], "not 'closd'\n  fix: did you mean `closed`?"),
        (None, ["seed: -1"], "/c.yaml:12: seed: should be 0 or more, not -1"),
        (None, ["seed: 4294967296"], "seed: should be less than 4294967296"),
        (None, ["budget: 20min"], "budget: should be a mapping of keys, not '20min'"),
        (None, ["budget: 20min"], "fix: keys here: `total`, `cold`, `trial`, `open`"),
        (None, ["budget: {total: 20 minutes}"], "should be a duration such as 90s, 20min or 1.5h, not '20"),
        (None, ["budget: {total: 1.2.3}"], "budget.total: should be a duration"),
        (None, ["budget: {total: -5}"], "budget.total: should be greater than 0, not -5"),
        (None, ["stop: {rel_ci: 0}"], "stop.rel_ci: should be greater than 0, not 0"),
        (None, ["stop: {min_repetitions: 9, max_repetitions: 3}"], "stop: min_repetitions (9) is larger"),
        (None, ["stop: {blocks: 4, max_repetitions: 3}"], "stop: blocks (4) is larger than max_repetitions (3)"),
        (None, ["stop: {blocks: 0}"], "stop.blocks: should be greater than 0, not 0"),
        (None, ["energy: onn"], "should be `auto`, `off` or a mapping with `meters`, `window`, `rapl`, `hwmon`"),
        (None, ["energy: of"], "not 'of'\n  fix: did you mean `off`?"),
        (None, ["energy: {meter: [fake]}"], "energy.meter: unknown key\n  fix: did you mean `meters`?"),
        (None, ["experiment: verify"], "should be `none` or a mapping with `kind`, `options`, not 'verify'"),
        (None, ["speculation: {method: x, gamma: 0}"], "c.yaml:12: speculation.gamma: should be greater than 0, not 0"),
        (None, ["speculation: {gamma: 2}"], "speculation.method: a required key is missing"),
        (None, ["compare: {published: cerebras}"], "compare.published: should be a list, not 'cerebras'"),
        (None, ["labels: {a: 5}"], "/c.yaml:12: labels.a: should be text, not 5"),
        (None, ["labels: [a]"], "labels: should be a mapping of keys, not a list"),
        ("name", ["name: a/b"], "/c.yaml:11: name: should begin with a letter or digit"),
        (None, ["device: [cuda:0, cpu]"], "c.yaml:12: device: a model cannot be split over devices of different kinds"),
        (None, ["zip: 5"], "/c.yaml:12: zip: should be a list of lists of axes"),
        (None, ["zip: [[load.static_batch]]"], "zip: names 'load.static_batch', which is no axis with a known end"),
        (None, ["exclude: 5"], "/c.yaml:12: exclude: should be a list of mappings"),
        (None, ["exclude: [{}]"], "exclude: should be a list of mappings"),
        (None, ["exclude: [{engine.knd: fake}]"], "there is no key 'engine.knd'\n  fix: did you mean `engine.kind`?"),
        (None, ["exclude: [{engine.kind: fake}]"], "/c.yaml:12: exclude: the sweep is empty: every point is excluded"),
    ],
)
def test_a_wrong_config(tmp_path: Path, without: str | None, extra: list[str], expected: str) -> None:
    assert expected in fault(tmp_path, *extra, without=without)


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        ("{kind: jsonl}", "workload: a jsonl workload needs the `path` of its file"),
        ("{kind: fixed}", "workload: a fixed workload needs its `text`"),
        ("{output_tokens: 1}", "workload.output_tokens: should be 2 or more, not 1"),
        ("{prompt_tokens: 1-max*2}", "a range up to `max` is possible for load.static_batch alone"),
        ("{prompt_tokens: [[1, 2]]}", "workload.prompt_tokens: should be a whole number, not a list"),
        ("{kind: syntetic}", "not 'syntetic'\n  fix: did you mean `synthetic`?"),
        ("5", "workload: should be a mapping of keys, not 5"),
    ],
)
def test_a_wrong_workload(tmp_path: Path, workload: str, expected: str) -> None:
    assert expected in fault(tmp_path, overrides=(f"workload={workload}",))


def test_a_wrong_object_in_a_list_is_told_with_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: a\nmodel:\n  - source: shape:a\n  - source: shape:b\n    dtype: bf16\nengine: {kind: fake}\n"
    )
    with pytest.raises(SpecError) as caught:
        read_config(path)
    assert (5, "model.dtype") == (caught.value.line, caught.value.key)
    assert "did you mean `bfloat16`?" == caught.value.fix


def test_more_than_one_fault_is_counted(tmp_path: Path) -> None:
    said = fault(tmp_path, "stop: {rel_ci: 0, min_repetitions: x}")
    assert "stop.rel_ci: should be greater than 0, not 0 (and 1 more)" in said


@pytest.mark.parametrize("text", ["", "5", "[1, 2]", "just words", "# nothing\n"])
def test_a_config_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match="a config is a mapping of keys"):
        read_config(path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("load.static_batch=0", "--set load.static_batch: should be greater than 0, not 0"),
        ("model.weights=rndom", "--set model.weights: should be one of 'pretrained' or 'random', not 'rndom'"),
        ("load={kind: closed, concurrency: 4}", "--set load: load.requests: a required key is missing"),
        ("stop.rel_c=1", "--set stop.rel_c: unknown key\n  fix: did you mean `rel_ci`?"),
        ("stopp.x=1", "--set stopp.x: stopp: unknown key\n  fix: did you mean `stop`?"),
        ("stop.rel_ci=", "--set stop.rel_ci: should be a number, not empty"),
        ("model.source=hf:", "--set model.source: should be text, not a mapping\n  fix: put quotes around"),
        ("seed='", "--set seed: not valid YAML"),
        ("load.static_batch=[]", "--set load.static_batch: the list is empty"),
        ("abc", "--set 'abc' is not KEY=VALUE\n  fix: write e.g. --set model.weights=random"),
        ("=1", "is not KEY=VALUE"),
        ("a..b=1", "is not KEY=VALUE"),
    ],
)
def test_a_fault_of_an_override_names_the_override_and_no_line(tmp_path: Path, override: str, expected: str) -> None:
    said = fault(tmp_path, overrides=(override,))
    assert expected in said
    assert "c.yaml" not in said


def test_a_fault_beside_an_override_still_names_the_file(tmp_path: Path) -> None:
    said = fault(tmp_path, "stop: {rel_ci: -1}", overrides=("seed=3",))
    assert "/c.yaml:12: stop.rel_ci" in said


SECRET = "hf_" + "q7Wd" * 8


@pytest.mark.parametrize(
    "override",
    [
        f"engine.options.note={SECRET}",
        f"labels={{who: '{SECRET}'}}",
        "engine.options.api_key=letmein",
        "engine.options.hf_token=letmein",
        "model.source=https://me:letmein@host/x",
        f"bad-{SECRET}",
    ],
)
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, override: str) -> None:
    said = fault(tmp_path, overrides=(override,))
    assert SECRET not in said
    assert "letmein" not in said


@pytest.mark.parametrize(
    "override", ["engine.options.api_key_env=VAR", "workload.output_tokens=9", "labels={tokens: x}"]
)
def test_what_only_sounds_like_a_secret_is_taken(tmp_path: Path, override: str) -> None:
    assert read(tmp_path, overrides=(override,))


def test_durations_are_seconds(tmp_path: Path) -> None:
    budget = read(tmp_path, "budget: {total: 20min, trial: 90s, open: 1.5h, cold: 250ms}").run.budget
    assert (1200.0, 90.0, 5400.0, 0.25) == (budget.total, budget.trial, budget.open, budget.cold)


def test_a_maximum_alone_may_lie_below_the_usual_minimum(tmp_path: Path) -> None:
    stop = read(tmp_path, "stop: {max_repetitions: 2}").run.stop
    assert (2, 2, 2) == (stop.max_repetitions, stop.min_repetitions, stop.blocks)
    assert stop == type(stop).model_validate_json(stop.model_dump_json())  # a record keeps it, defaults and all


@pytest.mark.parametrize("weights", ["", "    weights: pretrained\n"])
def test_another_number_of_layers_is_for_random_weights_alone(tmp_path: Path, weights: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        f"name: a\nengine: {{kind: fake}}\nmodel:\n  - source: shape:a\n{weights}    layers: 4\n", encoding="utf-8"
    )
    with pytest.raises(SpecError, match="another one is for random weights alone") as caught:
        read_config(path)
    assert (5 + bool(weights), "model.layers") == (caught.value.line, caught.value.key)
    assert "add `weights: random` to the model, or leave `layers` out" == caught.value.fix
    assert read_config(path, ("model.weights=random",))


@pytest.mark.parametrize("layers", ["0", "2.5", "all"])
def test_layers_are_a_whole_number_above_nothing(tmp_path: Path, layers: str) -> None:
    assert "--set model.layers: should be " in fault(tmp_path, overrides=(f"model.layers={layers}",))


def test_an_energy_window_longer_than_its_trial_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    text = "name: a\nmodel: {source: shape:a}\nengine: {kind: fake}\nbudget: {trial: 30}\nenergy: {window: WINDOW}\n"
    path.write_text(text.replace("WINDOW", "31"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"energy.window \(31 s\) is longer than budget.trial \(30 s\)") as caught:
        read_config(path)
    assert (str(path), 5, "energy") == (caught.value.file, caught.value.line, caught.value.key)
    assert caught.value.fix is not None and "raise budget.trial, or shorten energy.window" in caught.value.fix
    path.write_text(text.replace("WINDOW", "30"), encoding="utf-8")
    assert read_config(path)
