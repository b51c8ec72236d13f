"""Tells what looks like a secret, so that none gets into a record, a log or an error. It never keeps or prints one."""

from __future__ import annotations

import re

_KEY = re.compile(
    r"(?:^|[_-])(?<!_per_)(?:token|secret|password|passwd|api_?key|access_?key|credentials?)$", re.IGNORECASE
)
_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|csk-[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{16,}|AKIA[0-9A-Z]{16})|\bBearer\s+\S|://[^/\s:@]*:[^/\s@]+@"
)


def is_secret_key(name: str) -> bool:
    """Whether a key names a secret itself; `api_key_env` and `prompt_tokens` do not."""
    return _KEY.search(name) is not None


def is_secret_value(text: str) -> bool:
    """Whether a text has the form of an access token, or of an address with a password in it."""
    return _VALUE.search(text) is not None
