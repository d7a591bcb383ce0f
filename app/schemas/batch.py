"""Many deletion sets at once, and their answers, a line each."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, FailFast, Field
from pydantic.config import JsonDict

from app.problems import Problem
from app.schemas import Answer, RequestBody
from app.schemas.predict import Asked, DeletedAnswer, Deletion, DistributionAnswer, PredictionAnswer

MOST_DELETIONS: Final = 10_000

_LINE: Final[JsonDict] = {
    "index": 0,
    "id": "request-1",
    "version": 1,
    "contains_erased": False,
    "deleted": {"units": 8, "documents": 8},
    "predictions": [],
    "problem": None,
}


class BatchItem(RequestBody):
    """A deletion set of a batch."""

    id: str | None = Field(default=None, max_length=200, description="Given back in the answer's line.")
    delete: Deletion


class BatchRequest(Asked):
    """How would the model measure without each of these deletion sets?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sketch": "names",
                    "measurements": [{"kind": "loss", "text": "max"}, {"kind": "loss", "text": "zoe"}],
                    "deletions": [
                        {"id": "request-1", "delete": {"subset": "has-x"}},
                        {"id": "request-2", "delete": {"documents": [3, 17]}},
                    ],
                }
            ]
        }
    )

    deletions: Annotated[list[BatchItem], FailFast()] = Field(
        min_length=1, max_length=MOST_DELETIONS, description="Each is deleted alone; answered in this order."
    )


class BatchAnswer(Answer):
    """A line: what `POST /predict` answers for one deletion set, or why there is no answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LINE]})

    index: int = Field(description="Place of the deletion set in the batch, from 0.")
    id: str | None = Field(description="As it was given.")
    version: int = Field(description="The version that answered; the same in all lines.")
    contains_erased: bool = Field(description="Whether the version was trained on units that have been erased since.")
    deleted: DeletedAnswer | None = Field(description="Null where there is a problem.")
    predictions: list[PredictionAnswer | DistributionAnswer] | None = Field(
        description="One for each measurement; null where there is a problem."
    )
    problem: Problem | None = Field(description="Why this set has no answer; the others' lines go on.")
