"""Opens a config's lists and ranges into cells. Reads no device; `max` is answered by whoever calls.

A scalar or object given as a list is an axis, so is a range `a-b+step` or `a-b*factor`; `zip` pairs axes, `exclude`
drops points, `--set a.b=VALUE` overrides one key.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from tokbench.errors import SpecError
from tokbench.record.axes import MAX_CELLS, RUN_KEYS, Axis, count_up, find_axes
from tokbench.record.device_list import check_devices
from tokbench.record.schema import check_keys, check_path, validate
from tokbench.record.secrets import is_secret_value
from tokbench.record.spec import CellSpec, RunSpec
from tokbench.record.yaml_tree import Place, Plain, Tree, dotted, parse_tree, read_tree

ResolveMax = Callable[[CellSpec], int]
"""The largest static batch that memory holds for a cell given with a static batch of 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One point of the sweep with its identity."""

    cell_id: str
    """First 12 hex digits of SHA-256 over the resolved cell without labels."""
    pair_key: str
    """The same without device, hardware, engine: what two machines or engines are joined on."""
    group: str
    """The worker group: model, engine and device."""
    spec: CellSpec

    def resolved_json(self) -> str:
        """Canonical JSON that the identity was made from."""
        return canonical_json(self.spec)


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """A config file with its overrides, checked, its axes still closed."""

    run: RunSpec
    tree: Tree
    overrides: tuple[str, ...]

    def sha256(self) -> str:
        """Identity of what was asked; a run is resumed only with the same."""
        return hashlib.sha256(json.dumps(self.tree.value, sort_keys=True).encode()).hexdigest()


def canonical_json(spec: CellSpec) -> str:
    """The cell as JSON with sorted keys and no spaces, labels left out."""
    return json.dumps(spec.model_dump(mode="json", exclude={"labels"}), sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_cell(spec: CellSpec) -> Cell:
    """Give a resolved cell its identity."""
    pairing = spec.model_dump(mode="json", exclude={"labels", "device", "hardware", "engine"})
    grouping = spec.model_dump(mode="json", include={"model", "engine", "device"})
    return Cell(
        cell_id=_digest(canonical_json(spec)),
        pair_key=_digest(json.dumps(pairing, sort_keys=True, separators=(",", ":"))),
        group=_digest(json.dumps(grouping, sort_keys=True, separators=(",", ":"))),
        spec=spec,
    )


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file and apply `a.b=VALUE` overrides.

    Raises:
        SpecError: file, line, key and what to do.
    """
    tree = read_tree(path)
    if not isinstance(tree.value, dict):
        raise SpecError("a config is a mapping of keys", file=tree.file, line=1, fix="begin with `name:` and `model:`")
    for override in overrides:
        tree = _apply_override(tree, override)
    assert isinstance(tree.value, dict)
    check_keys(tree)
    _check_exclude(tree)
    check_devices(tree)
    run = validate(RunSpec, {key: tree.value[key] for key in RUN_KEYS if key in tree.value}, tree)
    config = Config(run, tree, tuple(overrides))
    expand(config, resolve_max=lambda spec: 1)
    return config


def _apply_override(tree: Tree, override: str) -> Tree:
    key, separator, text = override.partition("=")
    place = tuple(key.split("."))
    if not separator or not all(place):
        shown = "…" if is_secret_value(override) else override
        raise SpecError(f"--set {shown!r} is not KEY=VALUE", fix="write e.g. --set model.weights=random")
    source = f"--set {key}"
    try:
        value = parse_tree(text, source).value
    except SpecError as error:
        raise SpecError(error.message, file=source, key=error.key, fix=error.fix) from None
    root = copy.deepcopy(tree.value)
    made = _set(root, place, value)
    lines = {known: line for known, line in tree.lines.items() if known[: len(place)] != place}
    overrides = {known: by for known, by in tree.overrides.items() if known[: len(made)] != made}
    return Tree(root, lines, tree.file, {**overrides, made: source})


def _set(root: Plain, place: tuple[str, ...], value: Plain) -> tuple[str, ...]:
    """Write a value, in every object where a list of objects stands; the outermost place that had to be made."""
    branch = root
    for depth, name in enumerate(place[:-1]):
        assert isinstance(branch, dict)
        child = branch.get(name)
        if isinstance(child, list) and child and all(isinstance(item, dict) for item in child):
            made = [_set(item, place[depth + 1 :], value) for item in child]
            return (*place[: depth + 1], *min(made, key=len))
        if not isinstance(child, dict):
            branch[name] = {}
            _set(branch[name], place[depth + 1 :], value)
            return place[: depth + 1]
        branch = child
    assert isinstance(branch, dict)
    branch[place[-1]] = copy.deepcopy(value)
    return place


def _check_exclude(tree: Tree) -> None:
    assert isinstance(tree.value, dict)
    rules = tree.value.get("exclude", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) and rule for rule in rules):
        fix = "write exclude: [{engine.mode: compiled, load.static_batch: 4}]"
        raise tree.fault("should be a list of mappings, each with one key or more", ("exclude",), fix=fix)
    for index, rule in enumerate(rules):
        assert isinstance(rule, dict)
        for key in rule:
            check_path(key, tree, ("exclude", index, key))


def _put(root: dict[str, Plain], place: Place, value: Plain) -> None:
    branch: Plain = root
    for name in place[:-1]:
        assert isinstance(branch, dict) and isinstance(name, str)
        branch = branch[name]
    assert isinstance(branch, dict) and isinstance(place[-1], str)
    branch[place[-1]] = copy.deepcopy(value)


def _get(root: Plain, place: Sequence[str]) -> Plain:
    for name in place:
        if not isinstance(root, dict) or name not in root:
            return None
        root = root[name]
    return root


def expand(config: Config, resolve_max: ResolveMax) -> tuple[Cell, ...]:
    """Open every axis into cells, in the order of the file; equal cells are kept once.

    Raises:
        SpecError: an empty sweep, too many cells, or a point that does not validate.
    """
    tree = config.tree
    axes = find_axes(tree)
    growing = [axis for axis in axes if axis.growth]
    bundles = _bundle(tree, [axis for axis in axes if not axis.growth])
    count = 1
    for bundle in bundles:
        count *= len(bundle)
    if count > MAX_CELLS:
        raise _too_many(tree, count)
    cells: dict[str, Cell] = {}
    for combination in itertools.product(*bundles):
        for point in _grow(_point(tree, combination), growing, tree, resolve_max):
            if not _is_excluded(point):
                cell = make_cell(validate(CellSpec, _cell_part(point), tree))
                cells.setdefault(cell.cell_id, cell)
                if len(cells) > MAX_CELLS:
                    raise _too_many(tree, len(cells))
    if not cells:
        raise tree.fault("the sweep is empty: every point is excluded", ("exclude",), fix="loosen `exclude`")
    return tuple(cells.values())


def _too_many(tree: Tree, count: int) -> SpecError:
    message = f"the sweep has {count} cells or more, at most {MAX_CELLS} are possible"
    return SpecError(message, file=tree.file, fix="narrow an axis, or take a larger step")


Settings: TypeAlias = tuple[tuple[Place, Plain], ...]


def _bundle(tree: Tree, axes: list[Axis]) -> list[list[Settings]]:
    """Axes as lists of settings; those named together in `zip` advance together."""
    assert isinstance(tree.value, dict)
    pairs = tree.value.get("zip", [])
    if not isinstance(pairs, list) or not all(isinstance(pair, list) for pair in pairs):
        fix = "write zip: [[workload.prompt_tokens, load.static_batch]]"
        raise tree.fault("should be a list of lists of axes", ("zip",), fix=fix)
    by_name = {dotted(axis.place): axis for axis in axes}
    bundles: list[list[Settings]] = []
    zipped: set[str] = set()
    for pair in pairs:
        assert isinstance(pair, list)
        members = []
        for name in pair:
            if not isinstance(name, str) or name not in by_name:
                fix = f"axes here: {', '.join(by_name) or 'none'}"
                raise tree.fault(f"names {name!r}, which is no axis with a known end", ("zip",), fix=fix)
            if name in zipped:
                raise tree.fault(f"names {name!r} twice", ("zip",), fix="pair an axis once")
            members.append(by_name[name])
            zipped.add(name)
        if len({len(axis.values) for axis in members}) > 1:
            lengths = ", ".join(f"{dotted(axis.place)} {len(axis.values)}" for axis in members)
            raise tree.fault(
                f"pairs axes of different lengths ({lengths})", ("zip",), fix="give as many values to each"
            )
        bundles.append(
            [
                tuple(zip([a.place for a in members], values, strict=True))
                for values in zip(*(axis.values for axis in members), strict=True)
            ]
        )
    for name, axis in by_name.items():
        if axis.place[0] == "labels" and name not in zipped:
            fix = f"write zip: [[model, {name}]], with the axis that it labels"
            message = "a list of labels goes with another axis: by itself it makes no cells"
            raise tree.fault(message, axis.place, fix=fix)
    free: list[list[Settings]] = [
        [((axis.place, value),) for value in axis.values] for name, axis in by_name.items() if name not in zipped
    ]
    return [*free, *bundles]


def _point(tree: Tree, combination: Sequence[Settings]) -> dict[str, Plain]:
    point = copy.deepcopy(tree.value)
    assert isinstance(point, dict)
    for place, value in sorted((s for setting in combination for s in setting), key=lambda item: len(item[0])):
        _put(point, place, value)
    return point


def _grow(
    point: dict[str, Plain], growing: list[Axis], tree: Tree, resolve_max: ResolveMax
) -> Iterator[dict[str, Plain]]:
    if not growing:
        yield point
        return
    axis, *rest = growing
    assert axis.growth is not None
    if axis.place != ("load", "static_batch") or rest:
        message = "a range up to `max` is possible for load.static_batch alone"
        raise tree.fault(message, axis.place, fix="write the end as a number")
    start, operator, step = axis.growth
    _put(point, axis.place, 1)
    largest = resolve_max(validate(CellSpec, _cell_part(point), tree))
    for value in list(count_up(start, operator, step, largest)) or [start]:
        grown = copy.deepcopy(point)
        _put(grown, axis.place, value)
        yield grown


def _is_excluded(point: Mapping[str, Plain]) -> bool:
    rules = point.get("exclude", [])
    assert isinstance(rules, list)
    return any(
        all(_matches(_get(dict(point), key.split(".")), wanted) for key, wanted in rule.items())
        for rule in rules
        if isinstance(rule, dict)
    )


def _matches(value: Plain, wanted: Plain) -> bool:
    return value in wanted if isinstance(wanted, list) else value == wanted


def _cell_part(point: Mapping[str, Plain]) -> dict[str, Plain]:
    return {key: value for key, value in point.items() if key not in (*RUN_KEYS, "zip", "exclude")}
