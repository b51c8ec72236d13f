"""Models for the commands: found, checked before anything is fetched, and fetched with progress on the console."""

from __future__ import annotations

import contextlib
import os

from rich.console import Console

from tokbench.errors import PlugError
from tokbench.measure.models import ResolvedModel, cache_folder, parse_source, resolve_model
from tokbench.measure.plan import Place, Resolve, bind
from tokbench.record.spec import ModelSpec
from tokbench.record.sweep import Config


class _NotHereError(Exception):
    """A model that would have to be fetched before anything can be said about it."""


def check_before_fetching(config: Config, place: Place, console: Console) -> None:
    """Refuse what cannot run here before gigabytes are fetched, as far as the model's shape is known.

    Raises:
        SpecError, PlugError: as `bind`.
    """
    resolve = resolver(console, download=False)

    def look(spec: ModelSpec) -> ResolvedModel:
        try:
            return resolve(spec)
        except PlugError as error:
            raise _NotHereError from error

    with contextlib.suppress(_NotHereError):
        bind(config, place, look)


def resolver(console: Console, download: bool) -> Resolve:
    """How models are found; progress goes to the console."""

    def resolve(spec: ModelSpec) -> ResolvedModel:
        return resolve_model(
            parse_source(spec.source),
            spec.weights,
            spec.dtype,
            cache=cache_folder(os.environ),
            environ=os.environ,
            report=lambda text: console.print(text, markup=False, highlight=False),
            download=download,
        )

    return resolve
