"""Texts of the model, and of the model without some of its data."""

from __future__ import annotations

from time import perf_counter

from fastapi import APIRouter, Request, Response

from app.answering import Answered, answered, check_size
from app.direct import as_json
from app.errors import BusyError, ConflictError, ForbiddenError, NotFoundError
from app.guard import GuardedDirectRoute, caller_of, needs
from app.openapi import declared
from app.parts import parts_of
from app.schemas.predict import DeletedAnswer
from app.schemas.samples import SampleAnswer, SamplesAnswer, SamplesRequest
from engine.errors import ArtifactError, DeletionSetError, QuestionError, TextLengthError, UnknownCharacterError

router = APIRouter(tags=["predict"], route_class=GuardedDirectRoute)


@router.post(
    "/samples",
    operation_id="sample",
    response_model=SamplesAnswer,
    openapi_extra=needs("predict"),
    responses=declared(
        QuestionError(
            "The sketch has no axes, so that it can't tell parameters; a build with --axes serves this question."
        ),
        UnknownCharacterError("The character 'ö' at position 1 isn't in the model's vocabulary."),
        TextLengthError("The text has 40 characters; with a context of 16 positions at most 15 can be measured."),
        DeletionSetError("There is no document 9000: those of the dataset 'census-names' are numbered from 0 to 999."),
        ForbiddenError("This key is for predictions only: its answers are rounded, or of listed measurements."),
        NotFoundError("There is no sketch 'nmaes'. Known: names."),
        ConflictError("names v1 is retired and isn't served; ask the current version."),
        ArtifactError("names v1: the file parameters.safetensors doesn't have the checksum of the manifest."),
        BusyError("136 questions are before this one: try again later."),
        wrong="body.count: Input should be less than or equal to 100",
        body=True,
    ),
)
async def sample(question: SamplesRequest, request: Request) -> Response:
    """Draw texts from the model, and from the model without some of its data.

    The texts of a pair come from the same random numbers, so that they differ only where the models do.
    """
    started = perf_counter()
    parts = parts_of(request)
    caller_of(request).check_unrestricted()
    answer = await parts.queues.slow(_answer, question, request, started)
    return await answer.response()


def _answer(question: SamplesRequest, request: Request, started: float) -> Answered:
    parts = parts_of(request)
    with parts.metrics.phase("lookup"):
        found = parts.lookup.find(question.sketch, question.version, question.delete.resolvable())
    check_size(parts.settings, found)
    version, deletion = found.version, found.deletion
    with parts.metrics.phase("engine"):
        drawn = parts.predictor.draw_texts(
            version.artifact,
            units=deletion.units,
            count=question.count,
            seed=question.seed,
            temperature=question.temperature,
            prompt=question.prompt,
        )
    body = as_json(
        SamplesAnswer,
        sketch=version.sketch,
        version=version.number,
        contains_erased=version.contains_erased,
        deleted=DeletedAnswer(units=len(deletion.units), documents=deletion.documents),
        source=drawn.source,
        samples=[
            SampleAnswer(baseline=baseline, counterfactual=counterfactual)
            for baseline, counterfactual in zip(drawn.baseline, drawn.counterfactual, strict=True)
        ],
        elapsed_ms=(perf_counter() - started) * 1000,
    )
    return answered(request, "sample", found, body, samples=question.count)
