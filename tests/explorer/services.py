"""Services that the explorer is tried on: a small catalog that is built once, and the real server around copies of it.

The catalog is like the demo's, and smaller:

    dataset           documents                        sketch      of
    census-names      160, each a unit of its own      names       axes, 100 anchors and 48 random directions
    census-subjects   120, of some eighty subjects     subjects    64 random directions alone

Both have subsets. The report "default" measures both sketches, and everybody has an address (`address_of`), so that
requests for erasure find somebody.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import httpx
from starlette.types import ASGIApp

from app import catalog
from app.access import new_key
from app.building import build_sketch
from app.catalog import SCOPES, Containing, Matching, Scope, SubsetRule
from app.db import Database, migrate, open_database, transaction
from app.main import create_app
from app.privacy.identities import Identity, identity_hashes
from app.secret import Secret, load_secret
from app.server import HttpServer
from app.settings import Settings
from engine.configuration import SketchConfiguration
from engine.data import BUNDLED, BundledName
from engine.documents import Documents
from engine.measure import Measurement
from engine.model import ModelConfiguration
from tests.app.conftest import until

NAMES: Final = BUNDLED["census-names"].load().first(160)
SUBJECTS: Final = BUNDLED["census-subjects"].load().first(120)
UNSEEN: Final = BUNDLED["census-names"].load().texts[160:163]
"""Names that neither sketch was trained on; the report measures their losses."""

SUBSETS: Final[Mapping[BundledName, Mapping[str, SubsetRule]]] = {
    "census-names": {"has-x": Containing("x"), "has-z": Containing("z"), "ends-in-ia": Matching("ia$")},
    "census-subjects": {"has-x": Containing("x")},
}
"""Of each dataset, by name."""

REPORT: Final = "default"

_READY_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 20.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service that runs.

    Attributes:
        url: its address, without a slash at the end.
        settings: of it; its catalog may be opened beside it.
        keys: a key of each scope alone; nothing, where no key is needed.
        every_scope: a key of all of them; None where none is needed.
    """

    url: str
    settings: Settings
    keys: Mapping[Scope, str] = field(default_factory=dict)
    every_scope: str | None = None


def address_of(name: str) -> str:
    """The e-mail address of whom a name is, or of a subject."""
    return f"{name}@example.org"


def built_catalog(place: Path) -> Path:
    """The data directory of the catalog, which whoever comes first builds and others wait for; it is to be copied.

    Args:
        place: a directory that is the same for all processes that shall share it.
    """
    built, unfinished = place / "explorer", place / "explorer.partial"
    with (place / "explorer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            shutil.rmtree(unfinished, ignore_errors=True)  # of one who failed
            _build(Settings(data_dir=unfinished))
            unfinished.rename(built)
    return built


def _build(settings: Settings) -> None:
    settings.data_dir.mkdir()
    migrate(settings.database_url)
    database = open_database(settings)
    try:
        secret = load_secret(settings)
        _add_sketch(
            database,
            settings,
            "names",
            "census-names",
            NAMES,
            SketchConfiguration(
                model=ModelConfiguration(vocabulary=NAMES.vocabulary), axes=True, anchors=100, directions=48
            ),
        )
        _add_sketch(
            database,
            settings,
            "subjects",
            "census-subjects",
            SUBJECTS,
            SketchConfiguration(model=ModelConfiguration(vocabulary=SUBJECTS.vocabulary), directions=64),
        )
        with transaction(database) as session:
            for dataset, documents in (("census-names", NAMES), ("census-subjects", SUBJECTS)):
                catalog.add_links(session, catalog.get_dataset(session, dataset), _links(documents, secret))
            for sketch in ("names", "subjects"):
                catalog.set_report(
                    session,
                    name=REPORT,
                    sketch=catalog.get_sketch(session, sketch),
                    measurements=[asdict(Measurement(text=text)) for text in UNSEEN],
                    own_documents=1,
                    confidence=0.9,
                    materiality_nats=0.05,
                    materiality_probability=0.01,
                )
    finally:
        database.dispose()


def _add_sketch(
    database: Database,
    settings: Settings,
    sketch: str,
    dataset: BundledName,
    documents: Documents,
    configuration: SketchConfiguration,
) -> None:
    with transaction(database) as session:
        row = catalog.add_dataset(session, name=dataset, documents=documents, description=BUNDLED[dataset].description)
        for name, rule in SUBSETS[dataset].items():
            catalog.add_subset(session, dataset=row, name=name, rule=rule)
    build_sketch(
        database,
        settings,
        sketch=sketch,
        dataset=dataset,
        configuration=configuration,
        progress=lambda done, total: None,
    )


def _links(documents: Documents, secret: Secret) -> Iterator[tuple[str, list[str]]]:
    """Each unit's name, and the hashes of its address: the text's, where there are no subjects."""
    for number, name in enumerate(documents.unit_names):
        address = address_of(name if documents.has_subjects else documents.texts[number])
        yield name, identity_hashes(Identity(kind="email", value=address), secret)


def built_demo(data_dir: Path) -> Path:
    """The demo's data directory, built by the command; takes a minute or two."""
    command = [sys.executable, "-m", "app", "demo", "--no-serve"]
    subprocess.run(command, env={**os.environ, "NEVERSEEN_DATA_DIR": str(data_dir)}, check=True)
    return data_dir


@contextmanager
def copied_service(built: Path, data_dir: Path, *, keyed: bool = False) -> Iterator[Service]:
    """A service of a copy of a catalog, which nobody else has.

    Args:
        built: data directory of the catalog.
        data_dir: where the copy is made; nothing is there yet.
        keyed: whether a key is needed.
    """
    shutil.copytree(built, data_dir)
    settings = Settings(data_dir=data_dir, port=0)
    keys = {scope: _new_key(settings, scope) for scope in SCOPES} if keyed else {}
    every_scope = _new_key(settings, *SCOPES) if keyed else None
    with running(create_app(settings), settings) as url:
        assert until(
            lambda: httpx.get(f"{url}/readyz", timeout=_READY_SECONDS).status_code == 200, seconds=_READY_SECONDS
        )
        yield Service(url=url, settings=settings, keys=keys, every_scope=every_scope)


def _new_key(settings: Settings, *scopes: Scope) -> str:
    prefix, key = new_key()
    database = open_database(settings)
    with transaction(database) as session:
        hashed = load_secret(settings).key_hash(key)
        catalog.add_key(session, prefix=prefix, name="-".join(scopes).replace(":", "-"), hash=hashed, scopes=scopes)
    database.dispose()
    return key


@contextmanager
def running(app: ASGIApp, settings: Settings) -> Iterator[str]:
    """An application on the server that the command line starts, in a thread; its address."""
    server = HttpServer(app, settings)
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service doesn't start"
            time.sleep(0.005)
        [url] = server.addresses
        yield url
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS)
    assert not thread.is_alive(), "the service doesn't stop"
