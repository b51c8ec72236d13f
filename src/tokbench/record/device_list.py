"""What `device:` may say: one device, or a list of those that hold one model together. Looks for none of them."""

from __future__ import annotations

from tokbench.record.yaml_tree import Place, Tree

SPLITTABLE = ("cuda", "rocm", "cpu")
_PLACE: Place = ("device",)


def check_devices(tree: Tree) -> None:
    """Refuse a list of devices that cannot hold one model together.

    A CPU may stand there more than once: each is a process of its own. A GPU may not.

    Raises:
        SpecError: file, line, what is wrong and what to write.
    """
    value = tree.value.get("device", "auto") if isinstance(tree.value, dict) else "auto"
    names = value if isinstance(value, list) else [value]
    if not names:
        raise tree.fault("the list is empty: there is no device", _PLACE, fix="write device: auto")
    texts = [name for name in names if isinstance(name, str)]
    if len(texts) < len(names):
        odd = next(name for name in names if not isinstance(name, str))
        raise tree.fault(f"should be text, not {odd!r}", _PLACE, fix="write e.g. device: cuda:0")
    if len(texts) > 1:
        _check_group(texts, tree)


def _check_group(names: list[str], tree: Tree) -> None:
    kinds = [name.partition(":")[0] for name in names]
    alone = next((name for name, kind in zip(names, kinds, strict=True) if kind not in SPLITTABLE), None)
    if alone is not None:
        message = f"{alone!r} cannot be one of several devices that hold a model together"
        raise tree.fault(message, _PLACE, fix="write e.g. device: [cuda:0, cuda:1]")
    if len(set(kinds)) > 1:
        message = f"a model cannot be split over devices of different kinds ({', '.join(sorted(set(kinds)))})"
        raise tree.fault(message, _PLACE, fix="name devices of one kind, e.g. device: [cuda:0, cuda:1]")
    if kinds[0] == "cpu":
        return
    vague = next((name for name in names if ":" not in name), None)
    if vague is not None:
        raise tree.fault(f"{vague!r} does not say which one", _PLACE, fix=f"write e.g. {vague}:0")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise tree.fault(f"names {twice} twice: a GPU holds one part of a model", _PLACE, fix="name each GPU once")
