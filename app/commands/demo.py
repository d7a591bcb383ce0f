"""``neverseen demo``: from nothing to true answers, and a service to ask more.

Everything is made with the functions that the other commands use, and what an earlier start made is used again.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer
from rich import box
from rich.table import Table

from app import catalog
from app.access import any_key
from app.building import build_sketch
from app.catalog import Containing, Matching, SubsetRule
from app.commands import console, opened, predictor_of
from app.commands.serve import serve_until_stopped
from app.db import Database, transaction
from app.errors import ConflictError, NotFoundError
from app.predictor import Artifact
from app.privacy.identities import Identity, identity_hashes
from app.secret import load_secret
from app.serving import artifact_of
from app.settings import Settings
from engine.configuration import SketchConfiguration
from engine.data import BUNDLED, BundledName
from engine.documents import Documents
from engine.measure import Measurement, measure_models
from engine.model import ModelConfiguration
from engine.question import Prediction
from engine.retrain import retrain
from engine.terminal import progress_bar

DATASET: BundledName = "census-names"
SKETCH = "names"
NAMES, DIRECTIONS = 1_000, 200
"""What two cores sketch in three to four minutes."""

REPORT, REPORTED = "default", 19
"""What is measured for an erasure request: losses of so many names that the model never saw, and of the person's."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A deletion query of the demo."""

    subset: str
    rule: SubsetRule
    text: str
    words: str


CASES = (
    Case(subset="has-x", rule=Containing("x"), text="max", words='with "x"'),
    Case(subset="has-z", rule=Containing("z"), text="zoe", words='with "z"'),
    Case(subset="ends-in-ette", rule=Matching("ette$"), text="annette", words='in "-ette"'),
)


def demo(
    serve: Annotated[bool, typer.Option(help="Serve afterwards, until Ctrl-C.")] = True,
    browse: Annotated[bool, typer.Option(help="Open the page that is served, where there is a screen.")] = True,
    directions: Annotated[int, typer.Option(min=2, help="Random directions of the sketch.")] = DIRECTIONS,
    names: Annotated[int, typer.Option(min=200, help="Train on the first so many of the 5,163 bundled names.")] = NAMES,
) -> None:
    """Train on real first names, sketch the training, answer three deletion queries, and compare with retraining."""
    with opened() as (settings, database):
        documents = _documents(database, names)
        console.print(
            f"[bold]1.[/bold] Dataset [bold]{DATASET}[/bold]: {len(documents):,} first names of the 1990 US Census.",
            highlight=False,
        )
        configuration = SketchConfiguration(
            model=ModelConfiguration(vocabulary=documents.vocabulary), axes=True, directions=directions
        )
        console.print(
            f"[bold]2.[/bold] Training microgpt ({configuration.model.parameter_count:,} parameters) on them, to order "
            f"{configuration.degree} along each name's deletion and along {directions} random directions; "
            f"{configuration.retrained(len(documents)):,} retrained models make single names exact, and bars hold.",
            highlight=False,
        )
        with progress_bar("   Sketching", "steps", console=console) as progress:
            version = build_sketch(
                database, settings, sketch=SKETCH, dataset=DATASET, configuration=configuration, progress=progress
            )
        _persons(settings, database, documents)
        artifact = artifact_of(version, settings.artifacts)
        console.print(
            "[bold]3.[/bold] Three deletion queries, answered from the sketch, then by retraining without the names:"
        )
        predictions = _predictions(settings, database, artifact)
        truths = _truths(settings, database, artifact, documents, configuration)
        console.print(_table(predictions, truths))
        console.print(
            "   Loss: mean nats per token. Estimate ± standard error, and an interval; both are calibrated on retrains "
            "of other deletions.\n",
            highlight=False,
        )
        keyed = any_key(database)
    if serve:
        serve_until_stopped(settings, listening=partial(_welcome, keyed=keyed, browse=browse))


def _documents(database: Database, count: int) -> Documents:
    """The bundled names and the demo's subsets, from the catalog."""
    with transaction(database) as session:
        try:
            dataset = catalog.get_dataset(session, DATASET)
        except NotFoundError:
            dataset = catalog.add_dataset(
                session,
                name=DATASET,
                documents=BUNDLED[DATASET].load().first(count),
                description=BUNDLED[DATASET].description,
            )
        if dataset.document_count != count:
            raise ConflictError(
                f"The catalog's {DATASET} holds {dataset.document_count:,} documents, not {count:,}. A dataset never "
                "changes: say --names as before, or another NEVERSEEN_DATA_DIR."
            )
        there = {subset.name for subset in catalog.list_subsets(session, dataset, limit=1000, offset=0).items}
        for case in CASES:
            if case.subset not in there:  # the names may have been imported without them
                catalog.add_subset(session, dataset=dataset, name=case.subset, rule=case.rule)
        return catalog.load_documents(session, dataset)


def _persons(settings: Settings, database: Database, documents: Documents) -> None:
    """Link each name to an address, as if it were a person's, and say what a request measures: names never seen."""
    secret = load_secret(settings)
    with transaction(database) as session:
        dataset = catalog.get_dataset(session, DATASET)
        if not catalog.count_links(session, dataset):
            addresses = [Identity(kind="email", value=f"{text}@example.org") for text in documents.texts]
            catalog.add_links(
                session,
                dataset,
                ((str(number), identity_hashes(one, secret)) for number, one in enumerate(addresses)),
            )
        if not catalog.get_report(session, REPORT):
            unseen = BUNDLED[DATASET].load().texts[len(documents) :][:REPORTED]
            catalog.set_report(
                session,
                name=REPORT,
                sketch=catalog.get_sketch(session, SKETCH),
                measurements=[asdict(Measurement(text=text)) for text in unseen],
                own_documents=1,
                confidence=0.9,
                materiality_nats=0.05,
                materiality_probability=0.01,
            )


def _predictions(settings: Settings, database: Database, artifact: Artifact) -> list[Prediction]:
    predictor = predictor_of(settings)
    answers = [
        predictor.predict(
            artifact,
            units=units,
            measurements=[Measurement(text=case.text)],
            degree="auto",
            downweights=[1.0],
            confidence=0.95,
            average="mean",
        )[0]
        for case, units in zip(CASES, _deletion_sets(database), strict=True)
    ]
    return [answer for answer in answers if isinstance(answer, Prediction)]


def _deletion_sets(database: Database) -> list[list[int]]:
    with transaction(database, writes=False) as session:
        dataset = catalog.get_dataset(session, DATASET)
        return [catalog.resolve_units(session, dataset, catalog.BySubset(case.subset)).units for case in CASES]


def _truths(
    settings: Settings, database: Database, artifact: Artifact, documents: Documents, configuration: SketchConfiguration
) -> list[float]:
    """The retrained losses; kept beside the catalog, since retraining takes longer than a start should."""
    kept = settings.data_dir / "demo-retrained.json"
    truths = _kept(kept, artifact)
    if truths is None:
        with progress_bar("   Retraining", "steps", console=console) as progress:
            models = retrain(
                documents, configuration, _deletion_sets(database), device=settings.device, progress=progress
            )
        truths = [
            measure_models(Measurement(text=case.text), configuration.model, models)[row].item()
            for row, case in enumerate(CASES)
        ]
        kept.write_text(json.dumps({"checksum": artifact.checksum, "losses": truths}), encoding="utf-8")
    return truths


def _kept(path: Path, artifact: Artifact) -> list[float] | None:
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    losses: list[float] = content["losses"]
    return losses if content["checksum"] == artifact.checksum else None


def _table(predictions: list[Prediction], truths: list[float]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # fits 80 columns
    for heading in ("names", "loss on", "baseline", "estimate", "95% interval", "retrained", "error"):
        table.add_column(heading, no_wrap=True)
    for case, prediction, truth in zip(CASES, predictions, truths, strict=True):
        table.add_row(
            case.words,
            case.text,
            f"{prediction.baseline:.3f}",
            f"{prediction.estimate:.3f} ± {prediction.standard_error:.3f}",
            f"{prediction.interval[0]:.2f} … {prediction.interval[1]:.2f}",
            f"{truth:.3f}",
            f"{prediction.estimate - truth:+.3f}",
        )
    return table


def curl_line(address: str, *, keyed: bool = False) -> str:
    """A shell command that asks a running demo its first question.

    Args:
        address: of the demo.
        keyed: whether a key is needed, which is then to be put in.
    """
    question = {
        "sketch": SKETCH,
        "delete": {"subset": CASES[0].subset},
        "measurements": [{"kind": "loss", "text": CASES[0].text}],
    }
    key = " -H 'Authorization: Bearer YOUR-KEY'" if keyed else ""
    return f"curl -s {address}/predict{key} -H 'Content-Type: application/json' -d '{json.dumps(question)}'"


def _welcome(addresses: Sequence[str], *, keyed: bool, browse: bool) -> None:
    """Say where the service is, with the demo's first question asked, and open that where it is wanted."""
    address = addresses[0].replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")  # of all of them, ours
    page = f"{address}/#/ask?{urlencode({'sketch': SKETCH, 'loss': CASES[0].text, 'subset': CASES[0].subset})}"
    console.print("[bold]4.[/bold] Serving. To ask by hand, and to look at the answers:\n", highlight=False)
    console.out(f"   {page}\n", highlight=False)
    console.print(f"   The API, to try it out: [bold]{address}/docs[/bold]. Or paste:\n", highlight=False)
    console.out(curl_line(address, keyed=keyed) + "\n", highlight=False)  # unbroken, so that it works when pasted
    console.print("   Ctrl-C stops.", highlight=False)
    if browse:
        _open(page)


def _open(page: str) -> None:
    """Open a page in the browser where there is a screen; without one, a text browser would take the terminal."""
    if sys.platform in {"darwin", "win32"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()  # it may wait for the browser
