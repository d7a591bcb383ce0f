"""Samples: texts of the model, and of the model without some of its data."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from app.schemas import Answer, Name, RequestBody, VersionNumber
from app.schemas.predict import DeletedAnswer, Deletion
from engine.counterfactual import LEAST_TEMPERATURE, MOST_SAMPLES, MOST_TEMPERATURE


class SamplesRequest(RequestBody):
    """What would the model write, had this not been in its training data?"""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sketch": "names", "delete": {"subset": "has-x"}, "count": 5, "seed": 7}]}
    )

    sketch: Name
    version: VersionNumber = None
    delete: Deletion
    count: int = Field(default=10, strict=True, ge=1, le=MOST_SAMPLES, description="How many texts of each model.")
    seed: int = Field(
        default=0, strict=True, ge=-(2**53), le=2**53, description="Of the random numbers, the same for both models."
    )
    temperature: float = Field(
        default=1.0,
        strict=True,
        ge=LEAST_TEMPERATURE,
        le=MOST_TEMPERATURE,
        description="Below 1 the likely is drawn more often.",
    )
    prompt: str = Field(default="", description="What every text begins with.")


class SampleAnswer(Answer):
    """A text of each model, from the same random numbers: they differ only where the models do."""

    baseline: str = Field(description="Of the model as it was trained.")
    counterfactual: str = Field(description="Of the model without what was deleted.")


class SamplesAnswer(Answer):
    """Texts of both models."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sketch": "names",
                    "version": 1,
                    "contains_erased": False,
                    "deleted": {"units": 8, "documents": 8},
                    "source": "axes",
                    "samples": [{"baseline": "marie", "counterfactual": "marie"}],
                    "elapsed_ms": 61.2,
                }
            ]
        }
    )

    sketch: str
    version: int
    contains_erased: bool = Field(description="Whether the version was trained on units that have been erased since.")
    deleted: DeletedAnswer
    source: Literal["axes", "pairs", "retrained"] = Field(
        description="Of the counterfactual parameters: retrained without this very set, or added up from the models"
        " without each unit, or each pair."
    )
    samples: list[SampleAnswer]
    elapsed_ms: float = Field(description="Time that the answer took in the server, the network not counted.")
