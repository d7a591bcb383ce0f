"""What a request is about, and what is measured for it: the person's part of each dataset, and the reports of these.

No text and no name of a person's goes into a report. A measurement of the operator's whose text holds one of these is
made, and its text is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from app import catalog
from app.catalog import ResolvedDeletion
from app.lookup import Lookup
from app.predictor import Predictor
from app.privacy.evidence import DatasetReport, Match, NotMeasured, SketchFacts
from app.privacy.results import result_of
from app.secret import Secret
from app.tables import Dataset, ErasureRequest, Report, SketchVersion
from engine.errors import QuestionError, ShardsAwayError
from engine.measure import Measurement
from engine.model import ModelConfiguration
from engine.question import Distribution, Prediction

_WITHHELD: Final = "A measurement of the report can't be made of this sketch; its text is one of the person's."


@dataclass(frozen=True, kw_only=True)
class Found:
    """The person's part of a dataset.

    Attributes:
        dataset: its row, of no session.
        deletion: the units.
        texts: of the person's documents, in training order.
        names: of the units, where they are subjects'.
        part: what the report measures of this dataset; None where it has no part for it, or its sketch another dataset.
        version: of the sketch that is asked; None as `part`.
    """

    dataset: Dataset
    deletion: ResolvedDeletion
    texts: list[str]
    names: list[str]
    part: Report | None
    version: SketchVersion | None

    @property
    def everything(self) -> bool:
        """Whether no training data would be left."""
        return len(self.deletion.units) == self.dataset.unit_count

    def holds(self, measurement: Measurement) -> bool:
        """Whether the text of a measurement holds one of the person's texts, or their name."""
        measured = measurement.text or measurement.prompt + measurement.completion
        return any(one in measured for one in (*self.texts, *self.names))


def linked(session: Session, row: ErasureRequest) -> list[tuple[Dataset, list[int]]]:
    """Where the person of a request is: datasets and units; nothing of what was erased already."""
    hashes = [one for identity in row.identities or () for one in identity["hashes"]]
    return [
        (catalog.get_dataset_of_id(session, dataset), units)
        for dataset, units in catalog.find_linked(session, hashes).items()
    ]


class Reporter:
    """Finds persons in datasets, and says what their deletion would change."""

    def __init__(self, secret: Secret, *, lookup: Lookup, predictor: Predictor) -> None:
        """Nothing is found yet.

        Args:
            secret: of the installation.
            lookup: that knows which versions are served.
            predictor: that answers.
        """
        self._secret, self._lookup, self._predictor = secret, lookup, predictor

    def find(self, session: Session, row: ErasureRequest) -> list[Found]:
        """The person's part of each dataset where they are."""
        parts = {part.dataset_id: part for part in catalog.get_report(session, row.report)}
        found = []
        for dataset, units in linked(session, row):
            texts = catalog.texts_of_units(session, dataset, units)
            part, served = parts.get(dataset.id), None
            if part is not None:
                asked = self._lookup.find_version(part.sketch.name, None)
                if asked.dataset.id == dataset.id:
                    served = catalog.get_version_of_id(session, asked.artifact.version_id)
            found.append(
                Found(
                    dataset=dataset,
                    deletion=ResolvedDeletion(units=units, documents=len(texts)),
                    texts=texts,
                    names=catalog.names_of_units(session, dataset, units) if dataset.has_subjects else [],
                    part=part if served is not None else None,
                    version=served,
                )
            )
        return found

    def match(self, one: Found, successor_of: str | None) -> Match:
        """What is filed of the person's part of a dataset: how much it is.

        Args:
            one: of a dataset.
            successor_of: name of the dataset before it, where the person is in that, too.
        """
        return Match(
            dataset=one.dataset.name,
            fingerprint=one.dataset.fingerprint,
            units=len(one.deletion.units),
            documents=one.deletion.documents,
            units_of=one.dataset.unit_count,
            documents_of=one.dataset.document_count,
            deletion_digest=self._secret.deletion_digest(one.dataset.fingerprint, one.deletion.units),
            successor_of=successor_of,
        )

    def report(
        self, one: Found, part: Report, asked: SketchVersion
    ) -> tuple[DatasetReport, list[Prediction | Distribution]]:
        """What a report says of a dataset, and the predictions that it says it of.

        Args:
            one: the person's part of the dataset.
            part: of the report, for it.
            asked: the version of its sketch that answers.

        Raises:
            QuestionError, ArtifactError: as `Predictor.predict`.
            ShardsAwayError: a part of the sketch is away; what is filed rests on all of it.
        """
        artifact = self._lookup.find_version(part.sketch.name, asked.number).artifact
        wanted: list[tuple[int | None, Measurement]] = [(None, Measurement(**one)) for one in part.measurements]
        wanted += [(number, Measurement(text=text)) for number, text in enumerate(one.texts[: part.own_documents], 1)]
        can, cannot = [], []
        for own, measurement in wanted:
            withheld = own is None and one.holds(measurement)
            try:
                self._predictor.check(artifact, [measurement])
            except QuestionError as error:
                label = f"own document {own}" if own else "withheld" if withheld else measurement.label
                cannot.append(NotMeasured(label=label, reason=_WITHHELD if own or withheld else str(error)))
            else:
                can.append((own, withheld, measurement))
        predictions = self._predictor.predict(
            artifact,
            units=one.deletion.units,
            measurements=[measurement for *_, measurement in can],
            degree="auto",
            downweights=[1.0],
            confidence=part.confidence,
        )
        if any(prediction.missing_share for prediction in predictions):
            raise ShardsAwayError(f"A shard of {artifact.label} is away, and what is filed rests on the whole sketch.")
        results = tuple(
            result_of(
                prediction,
                threshold_nats=part.materiality_nats,
                threshold_probability=part.materiality_probability,
                confidence=part.confidence,
                own=own,
                withheld=withheld,
            )
            for (own, withheld, _), prediction in zip(can, predictions, strict=True)
        )
        report = DatasetReport(
            dataset=one.dataset.name,
            report=part.name,
            sketch=SketchFacts(
                name=asked.sketch.name,
                version=asked.number,
                checksum=asked.checksum,
                built_at=asked.created_at,
                parameters=ModelConfiguration(**asked.configuration["model"]).parameter_count,
                contains_erased=asked.contains_erased,
            ),
            results=results,
            not_measured=tuple(cannot),
        )
        return report, predictions
