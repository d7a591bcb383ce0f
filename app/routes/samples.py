"""Texts of the model, and of the model without some of its data."""

from __future__ import annotations

from time import perf_counter

from fastapi import APIRouter

from app.deps import TheLookup, ThePredictor
from app.errors import ConflictError, NotFoundError
from app.openapi import declared
from app.schemas.predict import DeletedAnswer
from app.schemas.samples import SampleAnswer, SamplesAnswer, SamplesRequest
from engine.errors import ArtifactError, DeletionSetError, QuestionError, TextLengthError, UnknownCharacterError

router = APIRouter(tags=["predict"])


@router.post(
    "/samples",
    operation_id="sample",
    responses=declared(
        QuestionError(
            "The sketch has no axes, so that it can't tell parameters; a build with --axes serves this question."
        ),
        UnknownCharacterError("The character 'ö' at position 1 isn't in the model's vocabulary."),
        TextLengthError("The text has 40 characters; with a context of 16 positions at most 15 can be measured."),
        DeletionSetError("There is no document 9000: those of the dataset 'census-names' are numbered from 0 to 999."),
        NotFoundError("There is no sketch 'nmaes'. Known: names."),
        ConflictError("names v1 is retired and isn't served; ask the current version."),
        ArtifactError("names v1: the file parameters.safetensors doesn't have the checksum of the manifest."),
        wrong="body.count: Input should be less than or equal to 100",
        body=True,
    ),
)
def sample(question: SamplesRequest, lookup: TheLookup, predictor: ThePredictor) -> SamplesAnswer:
    """Draw texts from the model, and from the model without some of its data.

    The texts of a pair come from the same random numbers, so that they differ only where the models do.
    """
    started = perf_counter()
    found = lookup.find(question.sketch, question.version, question.delete.resolvable())
    version, deletion = found.version, found.deletion
    drawn = predictor.draw_texts(
        version.artifact,
        units=deletion.units,
        count=question.count,
        seed=question.seed,
        temperature=question.temperature,
        prompt=question.prompt,
    )
    return SamplesAnswer.model_validate(
        {
            "sketch": version.sketch,
            "version": version.number,
            "deleted": DeletedAnswer(units=len(deletion.units), documents=deletion.documents),
            "source": drawn.source,
            "samples": [
                SampleAnswer(baseline=baseline, counterfactual=counterfactual)
                for baseline, counterfactual in zip(drawn.baseline, drawn.counterfactual, strict=True)
            ],
            "elapsed_ms": (perf_counter() - started) * 1000,
        }
    )
