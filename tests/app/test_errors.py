"""The table of errors is complete, and gives the statuses that the documentation promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import OperationalError

from app import errors as app_errors
from app.errors import PROBLEM_TYPES, AppError, problem_type
from engine import errors as engine_errors
from engine.errors import EngineError


def subclasses(root: type[Exception]) -> Iterator[type[Exception]]:
    for child in root.__subclasses__():
        yield child
        yield from subclasses(child)


ALL = sorted({*subclasses(AppError), *subclasses(EngineError)}, key=lambda error: error.__name__)


@pytest.mark.parametrize("error", ALL)
def test_every_error_has_a_problem_type(error: type[Exception]) -> None:
    kind = problem_type(error)
    assert 400 <= kind.status < 600
    assert kind.title
    assert kind.slug == kind.slug.lower().replace(" ", "-")


@pytest.mark.parametrize("root", [AppError, EngineError, Exception])
def test_a_root_has_none_so_that_a_new_class_must_be_given_one(root: type[Exception]) -> None:
    with pytest.raises(KeyError):
        problem_type(root)


def test_a_class_without_an_entry_has_that_of_its_ancestor() -> None:
    class TooSmallError(engine_errors.DegreeError):
        pass

    assert problem_type(TooSmallError) is PROBLEM_TYPES[engine_errors.DegreeError]


def test_slugs_tell_problem_types_apart() -> None:
    slugs = [kind.slug for kind in PROBLEM_TYPES.values()]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        *[(error, 400) for error in ALL if issubclass(error, engine_errors.QuestionError)],
        (engine_errors.DocumentsError, 400),
        (engine_errors.ArtifactError, 500),
        (app_errors.NotFoundError, 404),
        (app_errors.ConflictError, 409),
        (app_errors.UnavailableError, 503),
        (app_errors.SchemaError, 503),
    ],
)
def test_statuses_are_those_of_the_documentation(error: type[Exception], status: int) -> None:
    assert problem_type(error).status == status


def test_errors_of_libraries_are_answered_without_their_messages() -> None:
    kind, detail = app_errors.PROBLEM_TYPES_OF_LIBRARIES[OperationalError]
    assert kind.status == 503
    assert "try again" in detail
