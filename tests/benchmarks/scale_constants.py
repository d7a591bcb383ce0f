"""The constants of docs/scale.md, measured on this machine: arithmetic, measurements, answers, the catalog, the store.

Names of figures are what `Constants` finds them by. Ray's are in `tests.benchmarks.scale_ray`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import torch

from app import catalog
from app.actors import local_actor
from app.catalog import ByUnits, Entry
from app.db import Database, migrate, open_database, transaction
from app.settings import Settings
from engine import supplements
from engine.bench import Figure
from engine.blocks import block_tensors, execution
from engine.configuration import BlockKind, SketchConfiguration
from engine.copies import fetch
from engine.data import census_names
from engine.directions import directions
from engine.documents import Documents
from engine.estimate import prepare
from engine.measure import Measurement
from engine.model import ModelConfiguration
from engine.question import Question
from engine.remote import upload
from engine.resident import ResidentSketch
from engine.sketch import build
from engine.threads import cores, one_thread
from engine.train import schedule
from tests.benchmarks import scale_laws as laws
from tests.benchmarks.scale_ray import resident_bytes
from tests.stores import bucket_behind, running_s3

LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
TEXTS: Final = ("max", "alexandrabelle")
WIDTHS: Final = ((16, 1), (56, 1), (128, 2), (160, 3))
"""Of the models that are trained, with their layers: 4,192 parameters to 0.9 million."""

TRAINED_STEPS: Final = 32
LANES: Final = 16
"""Directions of a group, with the widest registers that there are; half of them where the cache is too small."""

LARGE: Final = 100_000
"""Parameters from which on half a group is trained, which takes long enough."""

_KINDS: Final[tuple[BlockKind, ...]] = ("directions", "axes", "retrained")
_RATE: Final = "… of use, {} parameters, {}"
_ROW: Final = "dataset, a unit with a document, its rows without texts and names"
_WRITTEN: Final = "dataset, a unit with a document, written"
_SEARCHED: Final = "deletion by a piece of text, a document"
_VACUUM: Final = "VACUUM of SQLite, a MB"
_SCHEDULE: Final = "schedule, a document, in each worker"
_BLOCK: Final = "list of blocks, a block"
_RECORD: Final = "audit, a record, {:,} a transaction"
_UNITARY: Final = "… of use, {:,} unitary directions"


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What the tables need of a machine.

    Attributes:
        flops_a_second: useful ones of a core that trains along directions, by the model's parameters.
        relative_rates: of the other kinds of work, by that along directions; of the smallest model.
        unitary_flops_a_second: of drawing directions.
        row_bytes: of a unit with a document in the catalog, texts and names not counted.
        row_seconds: of writing it.
        search_seconds: of a document that is looked at for a piece of text.
        vacuum_seconds_a_byte: of a catalog that is written anew.
        schedule_bytes: of a document, in each worker of a build.
        block_seconds: of an entry of a sketch's list of blocks.
        record_seconds: of a record of the audit that is written with many others.
    """

    flops_a_second: Mapping[int, float]
    relative_rates: Mapping[BlockKind, float]
    unitary_flops_a_second: float
    row_bytes: float
    row_seconds: float
    search_seconds: float
    vacuum_seconds_a_byte: float
    schedule_bytes: float
    block_seconds: float
    record_seconds: float

    @classmethod
    def of(cls, figures: Sequence[Figure]) -> Constants:
        """From the figures of `measured`."""
        values = {figure.name: figure.value for figure in figures}
        counts = [_model(width, layers).parameter_count for width, layers in WIDTHS]
        smallest = f"{counts[0]:,}"
        along = values[_RATE.format(smallest, "directions")]
        return cls(
            flops_a_second={count: 1e9 * values[_RATE.format(f"{count:,}", "directions")] for count in counts},
            relative_rates={kind: values[_RATE.format(smallest, kind)] / along for kind in _KINDS},
            unitary_flops_a_second=1e9 * values[_UNITARY.format(2_000)],
            row_bytes=values[_ROW],
            row_seconds=values[_WRITTEN] / 1e6,
            search_seconds=values[_SEARCHED] / 1e6,
            vacuum_seconds_a_byte=values[_VACUUM] / 1e9,
            schedule_bytes=values[_SCHEDULE],
            block_seconds=values[_BLOCK] / 1e9,
            record_seconds=values[_RECORD.format(1_000)] / 1e6,
        )

    def core(self, parameters: int) -> float:
        """Useful operations a second of a core, of the model that was measured whose size is the nearest."""
        nearest = min(self.flops_a_second, key=lambda measured: abs(math.log(measured / parameters)))
        return self.flops_a_second[nearest]


KEPT: Final = Constants(
    flops_a_second={4_192: 70e9, 41_552: 49e9, 402_176: 19e9, 932_800: 19e9},
    relative_rates={"directions": 1.0, "axes": 1.07, "retrained": 0.34},
    unitary_flops_a_second=33e9,
    row_bytes=98,
    row_seconds=20e-6,
    search_seconds=1.5e-6,
    vacuum_seconds_a_byte=9e-9,
    schedule_bytes=2_100,
    block_seconds=0.56e-6,
    record_seconds=20e-6,
)
"""As they were when docs/scale.md was written."""


def _model(width: int, layers: int) -> ModelConfiguration:
    return ModelConfiguration(vocabulary=LETTERS, width=width, layers=layers)


def measured() -> Iterator[Figure]:
    """All of them, one after the other."""
    yield from _training()
    with tempfile.TemporaryDirectory() as folder:
        yield from _answers(Path(folder))
    yield from _directions()
    yield from _catalog()
    yield from _files()


def _training() -> Iterator[Figure]:
    """Useful operations of a core, all of them busy."""
    for width, layers in WIDTHS:
        model = _model(width, layers)
        parameters = model.parameter_count
        for kind in _KINDS if width == WIDTHS[0][0] else _KINDS[:1]:
            seconds, tokens = _core_seconds(model, kind)
            plain = 6 * laws.multiplied(model) * tokens
            of_kind = {"directions": laws.products(3, 2), "axes": laws.products(3, 1), "retrained": 1}[kind]
            name = {"directions": "a direction", "axes": "an axis", "retrained": "a model"}[kind]
            yield Figure(name=f"step of {name}, {parameters:,} parameters, a core", value=1e6 * seconds, unit="µs")
            rate = plain * of_kind / seconds / 1e9
            yield Figure(name=_RATE.format(f"{parameters:,}", kind), value=rate, unit="GFLOP/s")
    longer = ModelConfiguration(vocabulary=LETTERS, context=64)
    seconds, tokens = _core_seconds(longer, "directions", letters=60)
    rate = 6 * laws.multiplied(longer) * tokens * laws.products(3, 2) / seconds / 1e9
    yield Figure(name=f"step of a direction, {tokens:.0f} tokens, a core", value=1e6 * seconds, unit="µs")
    yield Figure(name=_RATE.format(f"{longer.parameter_count:,}", f"{tokens:.0f} tokens"), value=rate, unit="GFLOP/s")


def _core_seconds(model: ModelConfiguration, kind: BlockKind, *, letters: int = 0) -> tuple[float, float]:
    """Seconds of a core for a step of one direction, axis or model; and the mean tokens of a document."""
    documents = census_names().first(TRAINED_STEPS)
    if letters:
        generator = random.Random(1)
        texts = ["".join(generator.choices(LETTERS, k=letters)) for _ in range(TRAINED_STEPS)]
        documents = Documents.from_records((text, None) for text in texts)
    together = LANES // 2 if model.parameter_count > LARGE else 4 * LANES
    configuration = SketchConfiguration(
        model=model, axes=kind != "directions", anchors=64, directions=together * cores(), block=together
    )
    device = torch.device("cpu")
    chosen = execution(configuration, device, 10**6)
    blocks = [block for block in configuration.blocks(documents.unit_count) if block.kind == kind]

    def train(number: int) -> float:
        times, work = [], []

        def report(done: int) -> None:
            times.append(time.perf_counter())
            work.append(done)

        block = blocks[number % len(blocks) if kind != "axes" else 0]  # the first axes begin with the first step
        block_tensors(configuration, documents, block, device, chosen, report=report)
        return (times[-1] - times[0]) / sum(work[1:])

    with one_thread(), ThreadPoolExecutor(cores()) as pool:
        seconds = statistics.median(pool.map(train, range(cores())))
    lengths = [len(step.inputs) for step in schedule(model, configuration.training, documents, device)]
    return seconds, sum(lengths) / len(lengths)


def _answers(folder: Path) -> Iterator[Figure]:
    """New and repeated measurements, by what they grow with; of a small model where the model doesn't matter."""
    documents = census_names().first(200)
    model = ModelConfiguration(vocabulary=documents.vocabulary)
    configuration = SketchConfiguration(model=model, directions=512, ensemble="sphere")
    build(documents, configuration, folder / "new", workers=cores())
    frame = ResidentSketch.open(folder / "new").frame
    for text in TEXTS:
        seconds = _median_seconds(functools.partial(prepare, [Measurement(text=text)], frame), 15)
        each = seconds * cores() / configuration.directions / (len(text) + 1)
        name = f"new text of {len(text) + 1} tokens, a direction and token, a core"
        yield Figure(name=name, value=1e6 * each, unit="µs")
    documents = census_names().first(1_000)
    tiny = ModelConfiguration(vocabulary=documents.vocabulary, width=4, heads=1)
    for count in (256, 2_048):
        place = folder / str(count)
        build(documents, SketchConfiguration(model=tiny, directions=count, ensemble="sphere"), place, workers=cores())
        sketch = ResidentSketch.open(place)
        for deleted in (2, 50, 500):
            seconds = _median_seconds(_asker(sketch, deleted), 5) / 20
            yield Figure(name=f"answer, {count:,} directions, {deleted} units deleted", value=1e3 * seconds, unit="ms")
    yield from _supplement(folder / "256", documents)


def _asker(sketch: ResidentSketch, deleted: int) -> Callable[[], None]:
    generator = random.Random(deleted)
    questions = [generator.sample(range(sketch.unit_count), deleted) for _ in range(20)]

    def ask() -> None:
        for units in questions:
            sketch.predict([Measurement(text="max")], units, Question())

    return ask


def _supplement(place: Path, documents: Documents) -> Iterator[Figure]:
    """Reading models that were retrained later: all of them, when one more is there."""
    artifact = ResidentSketch.open(place).artifact
    count = 256
    supplements.add(artifact, documents, [(unit,) for unit in range(count)])
    seconds = _median_seconds(lambda: supplements.read(artifact), 3)
    yield Figure(name="supplement, a file that is read", value=1e6 * seconds / count, unit="µs")


def _directions() -> Iterator[Figure]:
    """Drawing them."""
    for count, units in ((500, 1_000), (1_000, 2_000), (2_000, 4_000)):
        seconds = _seconds(functools.partial(directions, "unitary", 0, units, 0, count))
        rate = laws.unitary_flops(count, units) / seconds / 1e9
        yield Figure(name=f"{count:,} unitary directions of {units:,} units", value=seconds, unit="s")
        yield Figure(name=_UNITARY.format(count), value=rate, unit="GFLOP/s")
    seconds = _median_seconds(lambda: directions("sphere", 0, 100_000, 0, 20), 3)
    yield Figure(name="direction of `sphere`, a unit", value=1e9 * seconds / 2e6, unit="ns")


def _catalog() -> Iterator[Figure]:
    """SQLite: rows, what a deletion costs to find, records of the audit, and writing the file anew."""
    count = 50_000
    documents = Documents.from_records((f"a text of some length, number {i}", f"person {i}") for i in range(count))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        migrate(settings.database_url)
        database = open_database(settings)
        file = Path(folder) / "catalog.sqlite"

        def add() -> None:
            with transaction(database) as session:
                catalog.add_dataset(session, name="many", documents=documents)

        seconds = _seconds(add)
        _checkpoint(database)
        yield Figure(name=_WRITTEN, value=1e6 * seconds / count, unit="µs")
        texts = sum(len(text) + len(name) for text, name in zip(documents.texts, documents.unit_names, strict=True))
        yield Figure(name=_ROW, value=(file.stat().st_size - texts) / count, unit="B")
        with transaction(database, writes=False) as session:
            dataset = catalog.get_dataset(session, "many")
            for deleted in (1, 100, 10_000):
                names = ByUnits(random.Random(1).sample(documents.unit_names, deleted))
                taken = _median_seconds(functools.partial(catalog.resolve_units, session, dataset, names), 5)
                yield Figure(name=f"{deleted:,} named units, asked of the database", value=1e3 * taken, unit="ms")
            taken = _seconds(lambda: catalog.resolve_units(session, dataset, catalog.Containing("99")))
            yield Figure(name=_SEARCHED, value=1e6 * taken / count, unit="µs")
        for together in (1, 1_000):
            seconds = _median_seconds(functools.partial(_append, database, together), 20)
            yield Figure(name=_RECORD.format(together), value=1e6 * seconds / together, unit="µs")
        _checkpoint(database)
        megabytes = file.stat().st_size / 1e6
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            seconds = _seconds(lambda: driver.execute("VACUUM"))
        yield Figure(name=_VACUUM, value=1e3 * seconds / megabytes, unit="ms")
        database.dispose()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # whose memory nothing was freed in
        yield Figure(name=_SCHEDULE, value=pool.submit(_schedule_bytes, 20_000).result() / 20_000, unit="B")
    configuration = SketchConfiguration(model=_model(*WIDTHS[0]))
    many = dataclasses.replace(configuration, directions=5_000, block=1)
    yield Figure(name=_BLOCK, value=1e9 * _median_seconds(lambda: many.blocks(2), 50) / 5_000, unit="ns")


def _schedule_bytes(count: int) -> int:
    documents = Documents.from_records((f"text{i}", None) for i in range(count))
    model = ModelConfiguration(vocabulary=documents.vocabulary)
    training = SketchConfiguration(model=model).training
    before = resident_bytes()
    steps = schedule(model, training, documents, torch.device("cpu"))
    grown = resident_bytes() - before
    assert len(steps) == count
    return grown


def _append(database: Database, count: int) -> None:
    entry = Entry(at=datetime.now(UTC), actor=local_actor(), action="predict", details={"sketch": "names", "units": 50})
    with transaction(database) as session:
        catalog.append_records(session, [entry] * count)


def _checkpoint(database: Database) -> None:
    with database.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _files() -> Iterator[Figure]:
    """An object store over loopback, by the client that is used, and checksums."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    content = bytes(64 * 10**6)
    seconds = _median_seconds(lambda: hashlib.sha256(content).hexdigest(), 3)
    yield Figure(name="SHA-256, a MB", value=1e3 * seconds / 64, unit="ms")
    documents = census_names().first(20)
    model = ModelConfiguration(vocabulary=documents.vocabulary)
    configuration = SketchConfiguration(model=model, directions=640, ensemble="sphere")
    with tempfile.TemporaryDirectory() as folder, running_s3() as port, bucket_behind(port) as bucket:
        artifact = build(documents, configuration, Path(folder) / "built", workers=cores())
        megabytes = artifact.manifest.size_bytes / 1e6
        seconds = _seconds(lambda: upload(artifact, f"{bucket}/a"))
        yield Figure(name="put into a store, a MB, loopback", value=1e3 * seconds / megabytes, unit="ms")
        seconds = _seconds(lambda: fetch(f"{bucket}/a", Path(folder) / "fetched"))
        yield Figure(name="fetched and verified, a MB, loopback", value=1e3 * seconds / megabytes, unit="ms")


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _median_seconds(call: Callable[[], object], rounds: int) -> float:
    """After a first time that isn't counted."""
    call()
    return statistics.median(_seconds(call) for _ in range(rounds))
