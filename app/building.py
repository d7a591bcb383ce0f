"""From a dataset of the catalog to a registered sketch version: file first, row second.

Where artifacts lie in an object store, a build grows in the local directory, is uploaded, and then gets its row; on a
cluster it grows in the store. What another machine has built and uploaded isn't built again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from typing import Any

from pydantic import TypeAdapter

from app import catalog
from app.db import Database, transaction
from app.secret import load_secret
from app.settings import Settings
from app.tables import SketchVersion
from engine.cluster import Cluster
from engine.configuration import SketchConfiguration
from engine.copies import drop_incomplete
from engine.cost import Cost, estimate_cost
from engine.documents import Documents
from engine.remote import Published, check_same_sketch, find_published, upload
from engine.sketch import build, direction_steps
from engine.store import Artifact, Plan, Source
from engine.train import Progress
from engine.workers import worker_count
from engine.workspace import finished_files

logger = logging.getLogger(__name__)


def build_sketch(
    database: Database,
    settings: Settings,
    *,
    sketch: str,
    dataset: str,
    configuration: SketchConfiguration,
    cluster: Cluster | None = None,
    progress: Progress,
) -> SketchVersion:
    """Build a sketch of a dataset, or find it built, and make it the sketch's current version.

    The artifact's place follows from what is built: a build that was killed is gone on with, and the same build again
    is the version that there is.

    Args:
        database: the catalog.
        settings: where artifacts lie, and the device.
        sketch: name of the sketch; it is made where it is new.
        dataset: name of the dataset.
        configuration: what to build.
        cluster: that does the work, if this machine doesn't.
        progress: of the build.

    Raises:
        NotFoundError: an unknown dataset.
        ConflictError: the sketch is another dataset's.
        EngineError: what the engine refuses; StoreError, which is one, where the store is away: what was built is here.
    """
    with transaction(database, writes=False) as session:
        documents = catalog.load_documents(session, catalog.get_dataset(session, dataset))
        catalog.check_sketch(session, sketch, dataset)
    location = _location(sketch, configuration, documents)
    if settings.artifacts_url is not None:
        settings.artifacts.claim(load_secret(settings).installation)
    artifact = _published(settings, location, configuration, documents, cluster, progress)
    with transaction(database) as session:
        return catalog.register_version(
            session,
            sketch=sketch,
            dataset=catalog.get_dataset(session, dataset),
            location=location,
            checksum=artifact.checksum,
            configuration=_as_json(configuration),
            size_bytes=artifact.manifest.size_bytes,
        )


def rebuild_sketch(
    database: Database,
    settings: Settings,
    *,
    sketch: str,
    version: int | None,
    cluster: Cluster | None = None,
    progress: Progress,
) -> SketchVersion:
    """Build the successor of a version: of what remains of its dataset, in the same way; it becomes current.

    What remains is a dataset of its own, with the subsets, links and reports of the one before. Killed, it is gone on
    with.

    Args:
        database: the catalog.
        settings: where artifacts lie, and the device.
        sketch: name of the sketch.
        version: number of the version; None is the current one.
        cluster: that does the work, if this machine doesn't.
        progress: of the build.

    Raises:
        NotFoundError: an unknown sketch or version.
        ConflictError: nothing that it was trained on was erased, or all was.
        EngineError: what the engine refuses.
    """
    with transaction(database) as session:
        before = catalog.get_version(session, sketch, version)
        dataset = catalog.add_successor(session, before.dataset_id)
    configuration = TypeAdapter(SketchConfiguration).validate_python(before.configuration)
    model = dataclasses.replace(configuration.model, vocabulary=dataset.vocabulary)
    return build_sketch(
        database,
        settings,
        sketch=sketch,
        dataset=dataset.name,
        configuration=dataclasses.replace(configuration, model=model),
        cluster=cluster,
        progress=progress,
    )


def sketch_cost(
    settings: Settings,
    *,
    sketch: str,
    documents: Documents,
    configuration: SketchConfiguration,
    cluster: Cluster | None = None,
) -> Cost:
    """What `build_sketch` will cost: measured, with what a killed build has left counted off. Nothing is written.

    Raises:
        EngineError: what the engine refuses.
    """
    finished, device = (
        _finished(settings, _location(sketch, configuration, documents), configuration, documents),
        settings.device,
    )
    if cluster is None:
        workers = _workers(settings, configuration, documents)
        return estimate_cost(documents, configuration, device, workers, finished=finished)
    measure = functools.partial(estimate_cost, finished=finished, spread=True)
    named = cluster.named(device)
    return cluster.once(device, measure, documents, configuration, named, cluster.workers(device))


def _published(
    settings: Settings,
    location: str,
    configuration: SketchConfiguration,
    documents: Documents,
    cluster: Cluster | None,
    progress: Progress,
) -> Artifact | Published:
    """Build an artifact, and have it where it belongs: in the artifacts directory, or in the store.

    The nodes of a cluster may not share the directory; with a store, they write there.

    Raises:
        ConfigurationError: the place in the store holds another sketch.
        EngineError: as `build_sketch`.
    """
    url = settings.artifacts.origin(location)
    if (there := _stored(url, configuration, documents)) is not None:
        steps = direction_steps(configuration, documents)
        progress(steps, steps)
        return there
    if url is not None and drop_incomplete(settings.artifacts.path(location)):
        logger.warning("The copy of %s that was here lacked files, and the store has no such artifact.", location)
    artifact = build(
        documents,
        configuration,
        url if url is not None and cluster is not None else settings.artifacts.path(location),
        device=settings.device,
        workers=_workers(settings, configuration, documents),
        place=cluster,
        progress=progress,
    )
    return upload(artifact, url) if url is not None and isinstance(artifact, Artifact) else artifact


def _finished(settings: Settings, location: str, configuration: SketchConfiguration, documents: Documents) -> set[str]:
    """Names of the tensor files that needn't be built."""
    there = _stored(settings.artifacts.origin(location), configuration, documents)
    return finished_files(settings.artifacts.path(location)) if there is None else set(there.manifest.files)


def _stored(url: str | None, configuration: SketchConfiguration, documents: Documents) -> Published | None:
    """The artifact at a place of the store, which is this sketch's."""
    there = None if url is None else find_published(url)
    if there is not None:
        source = Source(fingerprint=documents.fingerprint, documents=len(documents), units=documents.unit_count)
        execution = there.manifest.plan.execution
        check_same_sketch(there.manifest, Plan(configuration=configuration, source=source, execution=execution))
    return there


def _workers(settings: Settings, configuration: SketchConfiguration, documents: Documents) -> int:
    return worker_count(direction_steps(configuration, documents), device=settings.device)


def _location(sketch: str, configuration: SketchConfiguration, documents: Documents) -> str:
    return f"{sketch}/{_digest(configuration, documents)}"


def _as_json(configuration: SketchConfiguration) -> dict[str, Any]:
    return dataclasses.asdict(configuration)


def _digest(configuration: SketchConfiguration, documents: Documents) -> str:
    content = json.dumps([_as_json(configuration), documents.fingerprint], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
