"""The rules of all claims as hashes, so that none changes without a dated reason.

It compares and writes two files beside the rows, `rules.sha256` and `CHANGES.md`. It reads no evidence.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tokbench.derive.claims.rows import CLAIMS_DIR, ClaimRow
from tokbench.errors import DataError

HASHES: Final = CLAIMS_DIR / "rules.sha256"
LOG: Final = CLAIMS_DIR / "CHANGES.md"
SHORT: Final = 12
"""Hex digits by which the log names a hash."""

_RULES: Final = {"id", "quantities", "inputs", "let", "supports_if", "refutes_if", "deadline", "parts"}
_REMARKS: Final = {"why", "says", "needs", "takes", "source_url"}
_LINE: Final = re.compile(r"- (\d{4}-\d{2}-\d{2}) (\S+) ([0-9a-f]{12}): \S.*")
_HEAD: Final = (
    "# Changes of the claims' rules\n\nOne line per rule as it was fixed or changed: date, claim, hash, reason.\n\n"
)


def hash_of(claim: ClaimRow) -> str:
    """SHA-256 over what decides: quantities, inputs, steps, rules and deadlines, without remarks and commands."""
    decides = _without_remarks(claim.model_dump(mode="json", include=_RULES, exclude_defaults=True))
    text = json.dumps(decides, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def faults(claims: Sequence[ClaimRow], hashes: str, log: str) -> tuple[str, ...]:
    """What keeps the rules from being frozen, in words: each claim whose hash or whose reason is not on file."""
    frozen = _read_hashes(hashes)
    told = {(match[2], match[3]) for match in map(_LINE.fullmatch, log.splitlines()) if match}
    found = []
    for claim in claims:
        current = hash_of(claim)
        if frozen.get(claim.id) != current:
            found.append(f"{claim.id}: the rules are not those of rules.sha256")
        if (claim.id, current[:SHORT]) not in told:
            found.append(f"{claim.id}: CHANGES.md has no dated reason for {current[:SHORT]}")
    gone = sorted(frozen.keys() - {claim.id for claim in claims})
    return (*found, *(f"{name}: stands in rules.sha256 and is no claim" for name in gone))


def write(claims: Sequence[ClaimRow], reason: str, today: datetime.date, folder: Path = CLAIMS_DIR) -> tuple[str, ...]:
    """Write the hashes, and one line in the log for each rule that is new or changed; the ids of those.

    Raises:
        DataError: no reason is given, or a file cannot be written.
    """
    if not reason.strip():
        raise DataError("a changed rule needs a reason", file=LOG.name, fix='scripts/freeze_claims "why it changed"')
    hashes, log = folder / HASHES.name, folder / LOG.name
    known = log.read_text(encoding="utf-8") if log.exists() else _HEAD
    told = {(match[2], match[3]) for match in map(_LINE.fullmatch, known.splitlines()) if match}
    changed = [claim for claim in claims if (claim.id, hash_of(claim)[:SHORT]) not in told]
    lines = [f"- {today} {claim.id} {hash_of(claim)[:SHORT]}: {' '.join(reason.split())}\n" for claim in changed]
    try:
        log.write_text(known + "".join(lines), encoding="utf-8")
        hashes.write_text("".join(f"{hash_of(c)}  {c.id}\n" for c in sorted(claims, key=_by_id)), encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", file=str(folder)) from None
    return tuple(claim.id for claim in changed)


def _by_id(claim: ClaimRow) -> str:
    return claim.id


def _read_hashes(text: str) -> Mapping[str, str]:
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return {row[1]: row[0] for row in rows if len(row) == 2}


def _without_remarks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_remarks(own) for key, own in value.items() if key not in _REMARKS}
    if isinstance(value, list):
        return [_without_remarks(own) for own in value]
    return value
