"""What an experiment tells goes into the record and comes out again; what could not is refused before."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tokbench.record.probes import ExperimentPoint


def point(**changes: object) -> ExperimentPoint:
    fields = {
        "trial_id": "t",
        "window_id": "t/experiment/0",
        "experiment": "nll",
        "settings": {"chunk": 0},
        "duration_s": 1.0,
        "stamped_by": "host",
        "values": {"nats": 2.5, "tokens": 3},
    }
    return ExperimentPoint.model_validate({**fields, **changes})


def test_a_point_is_read_as_it_was_written() -> None:
    assert point() == ExperimentPoint.model_validate_json(point().model_dump_json())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["values", "settings", "duration_s"])
def test_a_number_that_is_none_never_reaches_the_record(field: str, number: float) -> None:
    """It was written as `null`, and the whole record could not be read any more."""
    with pytest.raises(ValidationError, match="finite"):
        point(**{field: number if field == "duration_s" else {"nats": number}})
