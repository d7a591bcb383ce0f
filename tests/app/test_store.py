"""Artifacts in an object store: two services with a catalog in common, and a directory each that is a cache."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
import s3fs
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app as command_line
from app.artifacts import OWNER
from app.backup import back_up
from app.building import build_sketch, sketch_cost
from app.db import Database, transaction
from app.erasure import check_retrained, scrub
from app.errors import ConflictError, problem_type
from app.leftovers import find_leftovers, remove_leftovers
from app.pinning import all_pins, pin
from app.predictor import Artifact, Predictor
from app.secret import Secret, load_secret
from app.serving import Serving, located
from app.settings import Settings
from app.sharing import Sharing
from app.tables import AuditRecord, SketchVersion
from app.truth import truths_of
from app.uploading import upload_artifacts
from engine import supplements
from engine.configuration import SketchConfiguration
from engine.errors import ArtifactError, ConfigurationError, StoreError
from engine.locations import ObjectStore
from engine.measure import Measurement
from engine.model import ModelConfiguration
from engine.question import Prediction
from engine.remote import find_published, upload
from engine.sketch import build as build_artifact
from engine.store import MANIFEST, PARAMETERS, open_artifact
from tests.app.conftest import NAMES, until
from tests.app.test_erasure import erase_names
from tests.stores import Proxy, bucket_behind, new_clients

CONFIGURATION = SketchConfiguration(
    model=ModelConfiguration(vocabulary=NAMES.vocabulary, width=8, heads=2, context=6),
    directions=16,
    degree=2,
    dtype="float64",
)


@pytest.fixture
def backend() -> str:
    """The database plays no part here."""
    return "sqlite"


@pytest.fixture
def here(settings: Settings, url: str) -> Settings:
    """One service."""
    return settings.model_copy(
        update={"artifacts_url": f"{url}/artifacts", "artifacts_dir": settings.data_dir / "here"}
    )


@pytest.fixture
def there(here: Settings) -> Settings:
    """Another one, on another machine."""
    return here.model_copy(update={"artifacts_dir": here.data_dir / "there"})


@pytest.fixture
def dataset(database: Database) -> str:
    """The name of one that sketches are built of."""
    with transaction(database) as session:
        return catalog.add_dataset(session, name="names", documents=NAMES).name


def build(database: Database, settings: Settings, dataset: str) -> SketchVersion:
    return build_sketch(
        database, settings, sketch="tiny", dataset=dataset, configuration=CONFIGURATION, progress=lambda *_: None
    )


@pytest.fixture
def built(database: Database, here: Settings, dataset: str) -> SketchVersion:
    """A version that one service has built."""
    return build(database, here, dataset)


def artifact(database: Database, settings: Settings) -> Artifact:
    with transaction(database, writes=False) as session:
        return located(catalog.get_version(session, "tiny"), settings.artifacts)


def new_predictor() -> Predictor:
    return Predictor(device="cpu", resident_bytes=2**30, table_cache_bytes=2**20)


def estimate(predictor: Predictor, of: Artifact, *units: int) -> Prediction:
    [answer] = predictor.predict(
        of,
        units=units,
        measurements=[Measurement(text="max")],
        degree="auto",
        downweights=[1.0],
        confidence=0.9,
    )
    assert isinstance(answer, Prediction)
    return answer


def models_of(of: Artifact) -> tuple[set[str], set[str]]:
    """Names of the retrained models in a service's directory, and in the store."""
    assert of.origin is not None
    here = {path.name for path in supplements.directory_at(of.path).glob("*.safetensors")}
    return here, supplements.store_at(of.origin).names()


def installation(settings: Settings) -> str:
    """What tells it from others."""
    return load_secret(settings).installation


# Builds


def test_what_one_machine_builds_every_machine_serves(
    database: Database, here: Settings, there: Settings, built: SketchVersion
) -> None:
    origin = here.artifacts.origin(built.location)
    assert origin is not None
    published = find_published(origin)
    assert published is not None
    assert (published.checksum, published.manifest.size_bytes) == (built.checksum, built.size_bytes)
    answers = [
        dataclasses.replace(estimate(new_predictor(), artifact(database, settings), 3), below_resolution=False)
        for settings in (here, there)
    ]
    assert answers[0] == answers[1]
    assert open_artifact(there.artifacts.path(built.location), checksum=built.checksum).manifest == published.manifest


def test_what_another_machine_has_built_isnt_built_again(
    database: Database, there: Settings, built: SketchVersion
) -> None:
    assert sketch_cost(there, sketch="tiny", documents=NAMES, configuration=CONFIGURATION).seconds == 0
    assert build(database, there, "names").id == built.id
    assert not there.artifacts.path(built.location).exists()


def test_a_build_that_cant_be_uploaded_has_no_row_and_is_uploaded_the_next_time(
    database: Database, here: Settings, dataset: str, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = here.model_copy(update={"artifacts_url": f"{s3}-not/artifacts"})
    with pytest.raises(StoreError, match="no such bucket"):
        build(database, wrong, dataset)  # before anything is trained
    assert not here.artifacts_dir.exists()
    right = here.model_copy(update={"artifacts_url": f"{s3}/artifacts"})

    real = ObjectStore.create

    def refuse(self: ObjectStore, name: str, content: bytes) -> bool:
        if name == MANIFEST:
            raise StoreError("manifest.json can't be written: the store refuses it.")
        return real(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "create", refuse)
        with pytest.raises(StoreError, match="refuses it"):
            build(database, right, dataset)
    with transaction(database, writes=False) as session:
        assert session.scalars(select(SketchVersion)).all() == []
    [trained] = here.artifacts_dir.rglob(PARAMETERS)
    before = trained.stat()
    version = build(database, right, dataset)
    assert (trained.stat().st_ino, trained.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert artifact(database, right).open().checksum == version.checksum


def test_another_sketch_at_the_place_of_a_build_isnt_registered(
    database: Database, here: Settings, dataset: str, tmp_path: Path
) -> None:
    build(database, here, dataset)
    with transaction(database, writes=False) as session:
        version = catalog.get_version(session, "tiny")
    other = dataclasses.replace(CONFIGURATION, seed=77)
    foreign = build_artifact(NAMES, other, tmp_path / "foreign")
    place = version.location.replace("tiny", "another")
    upload(foreign, f"{here.artifacts_url}/{place}")
    with pytest.raises(ConfigurationError, match="holds another sketch"):
        sketch_cost(here, sketch="another", documents=NAMES, configuration=CONFIGURATION)
    with pytest.raises(ConfigurationError, match="holds another sketch"):
        build_sketch(
            database,
            here,
            sketch="another",
            dataset=dataset,
            configuration=CONFIGURATION,
            progress=lambda *_: None,
        )
    with transaction(database, writes=False) as session:
        assert [one.label for one in session.scalars(select(SketchVersion))] == ["tiny v1"]


def test_a_copy_of_what_is_gone_keeps_nobody_from_building(
    database: Database, here: Settings, there: Settings, built: SketchVersion
) -> None:
    artifact(database, there).open(files=())  # a copy of the manifest
    with transaction(database) as session:
        catalog.get_version(session, "tiny").state = "deleted"
    leftovers = find_leftovers(database, here.artifacts, idle_seconds=0, installation=installation(here))
    remove_leftovers(database, leftovers, here.artifacts, idle_seconds=0, installation=installation(here))
    again = build(database, there, "names")
    assert (again.number, again.location) == (2, built.location)
    assert new_predictor().load(artifact(database, there)).label == "tiny v2"


# Copies


def test_what_a_copy_lacks_or_has_damaged_is_fetched_when_it_is_loaded(
    database: Database, here: Settings, built: SketchVersion
) -> None:
    path = here.artifacts.path(built.location)
    block = next(path.glob("directions-*"))
    block.write_bytes(block.read_bytes()[:-1])
    (path / PARAMETERS).unlink()
    assert new_predictor().load(artifact(database, here)).label == built.label
    assert open_artifact(path, checksum=built.checksum).checksum == built.checksum


def test_what_is_damaged_in_the_store_is_refused_with_the_versions_name(
    database: Database, there: Settings, built: SketchVersion
) -> None:
    origin = there.artifacts.origin(built.location)
    assert origin is not None
    store = ObjectStore(origin)
    store.write(PARAMETERS, store.read(PARAMETERS)[:-1])
    with pytest.raises(ArtifactError, match=rf"tiny v1: The store's copy is damaged: {PARAMETERS}"):
        new_predictor().load(artifact(database, there))
    store.remove(MANIFEST)
    shutil.rmtree(there.artifacts_dir)
    with pytest.raises(ArtifactError, match=r"tiny v1: manifest.json is missing"):
        new_predictor().load(artifact(database, there))


def test_a_store_that_is_away_is_no_damage_and_what_is_here_serves_on(
    database: Database,
    settings: Settings,
    dataset: str,
    s3_port: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("app.predictor._SUPPLEMENT_PATIENCE_SECONDS", 0.1)
    proxy = Proxy(s3_port)
    with new_clients(), bucket_behind(proxy.port) as url:
        here = settings.model_copy(update={"artifacts_url": f"{url}/a", "artifacts_dir": settings.data_dir / "here"})
        build(database, here, dataset)
        of = artifact(database, here)
        supplements.add(of.open(files=()), NAMES, [[1], [3]])
        proxy.cut()
        assert new_predictor().load(of).label == "tiny v1"
        assert "can't be fetched now" in caplog.text
        # An erasure isn't complete before the store is back.
        erase_names(database, 1)
        with pytest.raises(StoreError, match="is away") as away:
            scrub(database, here, patience_seconds=0.1)
        assert problem_type(type(away.value)).status == 503
        proxy.restore()
        assert len(models_of(of)[1]) == 2
        scrub(database, here)
        assert [len(names) for names in models_of(of)] == [1, 1]
    proxy.close()


# What is retrained later


def test_a_pin_of_one_service_is_one_of_all(
    database: Database, here: Settings, there: Settings, built: SketchVersion
) -> None:
    with transaction(database) as session:
        dataset = catalog.get_dataset(session, "names")
        catalog.add_subset(session, dataset=dataset, name="has-x", rule=catalog.Containing("x"))
    serving = new_predictor()
    sharing = Sharing(database, serving, there.artifacts)
    deleted = all_pins(database, here, sketch="tiny", version=built.number).missing["has-x"]
    before = estimate(serving, artifact(database, there), *deleted)
    pin(database, here, all_pins(database, here, sketch="tiny", version=built.number), progress=lambda *_: None)
    assert all_pins(database, there, sketch="tiny", version=built.number).missing == {}
    sharing.look()
    after = estimate(serving, artifact(database, there), *deleted)
    assert (before.estimator == "retrained", after.estimator) == (False, "retrained")


def test_a_verification_needs_the_manifest_only_and_its_model_is_everybodys(
    database: Database, here: Settings, there: Settings, built: SketchVersion
) -> None:
    predictor = new_predictor()
    prediction = estimate(predictor, artifact(database, here), 3)
    with transaction(database) as session:
        deletion = catalog.resolve_units(session, catalog.get_dataset(session, "names"), catalog.ByDocuments([3]))
        verification = catalog.add_verification(
            session, version_id=built.id, deletion=deletion, predictions=[prediction], confidence=0.9
        ).id
    [truth] = truths_of(database, there, verification)
    assert {path.name for path in there.artifacts.path(built.location).iterdir()} == {MANIFEST}
    Sharing(database, predictor, here.artifacts).look()
    assert estimate(predictor, artifact(database, here), 3).estimate == pytest.approx(truth)


# Erasure


@pytest.fixture
def shared(database: Database, built: SketchVersion, here: Settings, there: Settings) -> Artifact:
    """Models without units 1, 1 and 2, and 3, that both services have; as the other one knows the artifact."""
    assert built.state == "ready"
    supplements.add(artifact(database, here).open(files=()), NAMES, [[1], [1, 2], [3]])
    artifact(database, there).open(files=())
    return artifact(database, there)


def sets_of(of: Artifact) -> list[tuple[int, ...]]:
    return supplements.read(open_artifact(of.path, files=())).sets


@pytest.fixture
def elsewhere(database: Database, there: Settings) -> tuple[Serving, Predictor]:
    """The other service. It looks when it is told: no thread is started."""
    predictor = new_predictor()
    return Serving(database, predictor, there.artifacts), predictor


def test_models_without_erased_units_go_from_the_store_and_from_every_service(
    database: Database, here: Settings, shared: Artifact, elsewhere: tuple[Serving, Predictor]
) -> None:
    serving, predictor = elsewhere
    serving.look()
    assert estimate(predictor, shared, 1).estimator == estimate(predictor, shared, 3).estimator == "retrained"
    erase_names(database, 1)
    assert scrub(database, here).files == 2
    assert sets_of(artifact(database, here)) == [(3,)]
    assert len(models_of(shared)[1]) == 1
    assert sets_of(shared) == [(1,), (1, 2), (3,)]  # nobody has looked there
    serving.look()
    assert sets_of(shared) == [(3,)]
    assert estimate(predictor, shared, 3).estimator == "retrained"  # the control
    assert estimate(predictor, shared, 1).estimator != "retrained"


def test_a_service_that_was_down_during_an_erasure_forgets_when_it_starts(
    database: Database, here: Settings, shared: Artifact, elsewhere: tuple[Serving, Predictor]
) -> None:
    erase_names(database, 1)
    scrub(database, here)
    assert sets_of(shared) == [(1,), (1, 2), (3,)]
    elsewhere[0].look()
    assert sets_of(shared) == [(3,)]


def test_what_a_process_that_was_killed_left_in_the_store_is_removed_by_any_service(
    database: Database, here: Settings, there: Settings, shared: Artifact
) -> None:
    erase_names(database, 1)
    scrub(database, here)
    late = artifact(database, here).open(files=())
    supplements.add(late, NAMES, [[1], [5]])  # by one who had read the documents before, and was killed then
    assert len(models_of(shared)[1]) == 3
    Sharing(database, new_predictor(), there.artifacts).look()
    assert sets_of(shared) == [(3,), (5,)]
    assert len(models_of(shared)[1]) == 2
    Sharing(database, new_predictor(), here.artifacts).look()
    assert sets_of(artifact(database, here)) == [(3,), (5,)]


def test_what_was_retrained_while_units_were_erased_is_removed_from_the_store(
    database: Database, here: Settings, shared: Artifact
) -> None:
    check_retrained(database, artifact(database, here))
    erase_names(database, 1)
    with pytest.raises(ConflictError, match="erased"):
        check_retrained(database, artifact(database, here))
    assert len(models_of(shared)[1]) == 1
    assert sets_of(artifact(database, here)) == [(3,)]


def test_a_running_service_sees_what_is_added_and_removed_elsewhere(
    database: Database,
    here: Settings,
    there: Settings,
    built: SketchVersion,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("app.sharing.LOOK_SECONDS", 0.05)
    predictor = new_predictor()
    serving = Serving(database, predictor, there.artifacts)
    serving.start()
    try:
        supplements.add(artifact(database, here).open(files=()), NAMES, [[1], [3]])
        assert until(lambda: estimate(predictor, artifact(database, there), 3).estimator == "retrained")
        with monkeypatch.context() as patch:  # a catalog that can't be read, and then can again

            def away(_: object) -> None:
                raise OperationalError("SELECT", {}, Exception("the catalog is away"))

            patch.setattr(catalog, "erased_artifacts", away)
            assert until(lambda: "can't be seen" in caplog.text)
        erase_names(database, 1)
        scrub(database, here)
        assert until(lambda: sets_of(artifact(database, there)) == [(3,)])
        assert estimate(predictor, artifact(database, there), 3).estimator == "retrained"
        assert built.label == "tiny v1"
    finally:
        serving.stop()


def test_models_of_a_version_that_nobody_serves_go_too(
    database: Database, here: Settings, there: Settings, shared: Artifact
) -> None:
    with transaction(database) as session:
        catalog.get_version(session, "tiny").state = "deleted"
    erase_names(database, 1)
    shutil.rmtree(here.artifacts_dir)  # nor has the one that erases a copy
    assert scrub(database, here).files == 2
    assert len(models_of(shared)[1]) == 1
    sharing = Sharing(database, new_predictor(), there.artifacts)
    sharing.erased()
    assert sets_of(shared) == [(3,)]


def test_an_erasure_during_the_first_look_isnt_lost(
    database: Database, there: Settings, shared: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction(database) as session:
        catalog.get_version(session, "tiny").state = "retired"
        catalog.get_sketch(session, "tiny").current_version_id = None
    sharing, real = Sharing(database, new_predictor(), there.artifacts), catalog.current_versions
    looks: list[int] = []

    def erased_meanwhile(session: Session) -> list[SketchVersion]:
        if not looks:
            sharing.erased()
        looks.append(1)
        return list(real(session))

    monkeypatch.setattr(catalog, "current_versions", erased_meanwhile)
    sharing.look()
    erase_names(database, 1)
    sharing.look()  # of everything, as the first wasn't whole
    assert sets_of(shared) == [(3,)]
    assert len(models_of(shared)[1]) == 1


@pytest.fixture
def second(database: Database, here: Settings, there: Settings, shared: Artifact) -> Artifact:
    """Another sketch with models without the same units."""
    assert shared.label == "tiny v1"
    build_sketch(database, here, sketch="zz", dataset="names", configuration=CONFIGURATION, progress=lambda *_: None)
    with transaction(database, writes=False) as session:
        version = catalog.get_version(session, "zz")
        found = [located(version, settings.artifacts) for settings in (here, there)]
    supplements.add(found[0].open(files=()), NAMES, [[1], [3]])
    found[1].open(files=())
    return found[1]


def test_one_file_that_cant_be_removed_keeps_no_sketch_from_forgetting_and_serving(
    database: Database,
    here: Settings,
    shared: Artifact,
    second: Artifact,
    elsewhere: tuple[Serving, Predictor],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (supplements.directory_at(shared.path) / "0").mkdir()
    erase_names(database, 1)
    scrub(database, here)
    serving, predictor = elsewhere
    for _ in range(3):
        serving.look()
    assert {one.label for one in predictor.resident()} == {"tiny v1", "zz v1"}
    assert (sets_of(shared), sets_of(second)) == ([(3,)], [(3,)])
    assert estimate(predictor, shared, 1).estimator != "retrained"
    assert caplog.text.count("isn't all forgotten here") == 1
    # It is tried again until all is gone.
    supplements.add(open_artifact(second.path, files=()), NAMES, [[1]])
    (supplements.directory_at(shared.path) / "0").rmdir()
    serving.look()
    assert sets_of(second) == [(3,)]


@pytest.mark.parametrize("which", [0, 1])
def test_one_file_that_cant_be_removed_keeps_no_version_from_being_forgotten(
    database: Database, there: Settings, shared: Artifact, second: Artifact, which: int
) -> None:
    (supplements.directory_at((shared, second)[which].path) / "0").mkdir()
    erase_names(database, 1)
    with pytest.raises(OSError, match="0"):
        Sharing(database, new_predictor(), there.artifacts).erased()
    assert (sets_of(shared), sets_of(second)) == ([(3,)], [(3,)])


def test_one_copy_that_cant_be_written_keeps_no_other_from_following(
    database: Database, here: Settings, there: Settings, shared: Artifact, second: Artifact
) -> None:
    with transaction(database, writes=False) as session:
        versions = {name: catalog.get_version(session, name) for name in ("tiny", "zz")}
    for version in versions.values():
        supplements.add(located(version, here.artifacts).open(files=()), NAMES, [[7]])
    new = supplements.directory_at(shared.path)
    for name in models_of(shared)[1] - models_of(shared)[0]:
        (new / name).mkdir()  # where the file belongs
    with pytest.raises(ArtifactError):
        Sharing(database, new_predictor(), there.artifacts).look()
    assert sets_of(second) == [(1,), (3,), (7,)]


def test_an_erasure_isnt_complete_while_a_file_is_left_but_goes_on_with_the_others(
    database: Database, here: Settings, shared: Artifact, second: Artifact
) -> None:
    in_the_way = supplements.directory_at(artifact(database, here).path) / "0"
    in_the_way.mkdir()
    erase_names(database, 1)
    with pytest.raises(OSError, match="0"):
        scrub(database, here)
    assert (len(models_of(shared)[1]), len(models_of(second)[1])) == (1, 1)
    in_the_way.rmdir()
    scrub(database, here)


# Leftovers


def test_only_what_no_version_names_is_left_over_in_the_store(
    database: Database, here: Settings, built: SketchVersion
) -> None:
    assert here.artifacts_url is not None
    store, own = ObjectStore(here.artifacts_url), installation(here)
    supplements.add(artifact(database, here).open(files=()), NAMES, [[3]])
    kept = store.entries().keys()
    for name in ("old/abc/parameters.safetensors", "old/abc/plan.json", "old/abc/.building/0123/a.json"):
        store.write(name, b"abc")
    for name in ("reports/table.csv", "old/README", "stray"):  # not ours
        store.write(name, b"abc")
    assert [one.name for one in find_leftovers(database, here.artifacts, idle_seconds=0, installation=own)] == [
        "old/abc (in the store)"
    ]
    assert find_leftovers(database, here.artifacts, idle_seconds=3600, installation=own) == []
    with transaction(database) as session:
        catalog.get_version(session, "tiny").state = "deleted"
    leftovers = find_leftovers(database, here.artifacts, idle_seconds=0, installation=own)
    place = built.location
    assert [(one.location, one.path is None) for one in leftovers] == [
        (place, False),
        (f"{place}.anchors", False),
        ("old/abc", True),
        (place, True),
        (f"{place}.anchors", True),
    ]
    assert {one.bytes for one in leftovers if one.location == "old/abc"} == {9}
    with transaction(database) as session:
        catalog.get_version(session, "tiny").state = "ready"
    removed = remove_leftovers(database, leftovers, here.artifacts, idle_seconds=0, installation=own)
    assert [one.location for one in removed] == ["old/abc"]  # the others are needed again
    assert store.entries().keys() == kept | {"reports/table.csv", "old/README", "stray"}
    with transaction(database) as session:
        catalog.get_version(session, "tiny").state = "deleted"
    leftovers = find_leftovers(database, here.artifacts, idle_seconds=0, installation=own)
    assert len(remove_leftovers(database, leftovers, here.artifacts, idle_seconds=0, installation=own)) == 4
    assert store.entries().keys() == {OWNER, "reports/table.csv", "old/README", "stray"}
    assert not list(here.artifacts_dir.rglob("*"))
    with transaction(database, writes=False) as session:
        records = session.scalars(select(AuditRecord).where(AuditRecord.action == "artifact.remove")).all()
    assert len(records) == 5


def test_nothing_is_removed_from_a_store_of_another_installation(
    database: Database, here: Settings, built: SketchVersion
) -> None:
    assert here.artifacts_url is not None
    store = ObjectStore(here.artifacts_url)
    with transaction(database) as session:
        catalog.get_version(session, "tiny").state = "deleted"
    own = installation(here)
    leftovers = find_leftovers(database, here.artifacts, idle_seconds=0, installation=own)
    assert {one.location for one in leftovers} == {built.location}  # the control
    before = store.entries().keys()
    other = Secret(b"of another installation, with another catalog").installation
    for nobody in (None, other):
        with pytest.raises(ConfigurationError, match="another installation's"):
            find_leftovers(database, here.artifacts, idle_seconds=0, installation=nobody)
        with pytest.raises(ConfigurationError, match="another installation's"):
            remove_leftovers(database, leftovers, here.artifacts, idle_seconds=0, installation=nobody)
    store.remove(OWNER)
    with pytest.raises(ConfigurationError, match="doesn't say whose it is"):
        find_leftovers(database, here.artifacts, idle_seconds=0, installation=own)
    assert store.entries().keys() == before - {OWNER}
    upload_artifacts(database, here)
    assert len(find_leftovers(database, here.artifacts, idle_seconds=0, installation=own)) == 2
    here.artifacts.claim(other)
    assert store.read(OWNER) == own.encode()


def test_an_installation_that_comes_second_is_warned(here: Settings, caplog: pytest.LogCaptureFixture) -> None:
    here.artifacts.claim("a" * 64)
    here.artifacts.claim("a" * 64)
    assert "another installation's" not in caplog.text
    here.artifacts.claim("b" * 64)
    assert "another installation's" in caplog.text


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["llm/weights.safetensors"], []),
        (["llm.anchors/weights.safetensors"], []),
        (["llm/plan.json", "llm/weights.safetensors", "llm/readme"], []),
        (["old.anchors/" + "1" * 64 + ".safetensors"], ["old.anchors"]),
        (["old/manifest.json", "old/parameters.safetensors"], ["old"]),
        (["old/.building/0123.seconds"], ["old"]),
    ],
)
def test_only_what_is_of_builds_or_retrains_is_left_over(
    database: Database, here: Settings, names: list[str], left: list[str]
) -> None:
    assert here.artifacts_url is not None
    for name in names:
        ObjectStore(here.artifacts_url).write(name, b"x")
    found = find_leftovers(database, here.artifacts, idle_seconds=0, installation=installation(here))
    assert [one.location for one in found] == left


def test_what_a_removal_has_hidden_is_left_over_and_goes_with_all_versions(
    database: Database, settings: Settings, s3: str
) -> None:
    bucket, client = s3.removeprefix("s3://"), s3fs.S3FileSystem()
    client.call_s3("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    here = settings.model_copy(update={"artifacts_url": s3})
    store, own = ObjectStore(s3), installation(here)
    here.artifacts.claim(own)
    store.write("old/abc/manifest.json", b"x")
    store.write("old/abc/parameters.safetensors", b"of a person")
    client.rm_file(f"{bucket}/old/abc/manifest.json")
    client.rm_file(f"{bucket}/old/abc/parameters.safetensors")
    leftovers = find_leftovers(database, here.artifacts, idle_seconds=0, installation=own)
    assert [one.location for one in leftovers] == ["old/abc"]
    remove_leftovers(database, leftovers, here.artifacts, idle_seconds=0, installation=own)
    assert store.entries(hidden=True).keys() == {OWNER}


def test_the_command_that_removes_leftovers_knows_its_installation(
    database: Database, here: Settings, built: SketchVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here.artifacts_url is not None
    with transaction(database) as session:
        catalog.get_version(session, "tiny").state = "deleted"
    for name, value in {
        "DATABASE_URL": here.database_url,
        "DATA_DIR": str(here.data_dir),
        "ARTIFACTS_URL": here.artifacts_url,
        "ARTIFACTS_DIR": str(here.artifacts_dir),
    }.items():
        monkeypatch.setenv(f"NEVERSEEN_{name}", value)

    def gc() -> str:
        done = CliRunner().invoke(command_line, ["sketches", "gc", "--yes", "--idle-hours", "0"])
        return f"{done.output} {done.exception}"

    with monkeypatch.context() as patch:
        patch.setenv("NEVERSEEN_SECRET", "of another installation, with another catalog")
        assert "another installation's" in gc()
    assert find_published(f"{here.artifacts_url}/{built.location}") is not None
    assert "Removed 2" in gc()
    assert ObjectStore(here.artifacts_url).entries().keys() == {OWNER}


# Backups, and moving


def test_a_backup_is_whole_without_the_store(
    database: Database, here: Settings, there: Settings, built: SketchVersion
) -> None:
    supplements.add(artifact(database, here).open(files=()), NAMES, [[3]])
    fetched = artifact(database, there).open(files=())  # a machine with nearly nothing of it
    (fetched.path / PARAMETERS).write_bytes(b"damaged")
    made = back_up(there, there.data_dir / "backup", dump=None, progress=lambda *_: None)
    assert (made.versions, made.damaged) == (1, ())
    copy = there.data_dir / "backup" / "artifacts" / built.location
    assert supplements.read(open_artifact(copy, checksum=built.checksum)).sets == [(3,)]
    assert not list((there.data_dir / "backup").rglob("*.part"))
    assert made.bytes == sum(path.stat().st_size for path in (there.data_dir / "backup").rglob("*") if path.is_file())
    origin = there.artifacts.origin(built.location)
    assert origin is not None
    ObjectStore(origin).write(PARAMETERS, b"damaged")
    shutil.rmtree(there.artifacts_dir)
    made = back_up(there, there.data_dir / "another", dump=None, progress=lambda *_: None)
    assert made.versions == 0
    assert "tiny v1: The store's copy is damaged" in made.damaged[0]


@pytest.mark.usefixtures("sketch")
def test_an_installation_moves_to_a_store_without_what_was_erased(
    database: Database, settings: Settings, here: Settings, there: Settings
) -> None:
    with pytest.raises(ConfigurationError, match="NEVERSEEN_ARTIFACTS_URL"):
        upload_artifacts(database, settings)
    supplements.add(artifact(database, settings).open(files=()), NAMES, [[1], [3]])
    erase_names(database, 1)
    moving = settings.model_copy(update={"artifacts_url": here.artifacts_url})
    told: list[str] = []
    uploaded = upload_artifacts(database, moving, tell=told.append)
    assert (uploaded.versions, uploaded.models, uploaded.damaged, told) == (1, 1, (), ["tiny v1"])
    assert upload_artifacts(database, moving).models == 0
    assert new_predictor().load(artifact(database, there)).label == "tiny v1"
    assert sets_of(artifact(database, there)) == [(3,)]
    with transaction(database) as session:
        catalog.get_version(session, "tiny").checksum = "0" * 64
    assert "another artifact" in upload_artifacts(database, moving).damaged[0]


@pytest.mark.usefixtures("built")
def test_the_commands_of_a_store(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data_dir", "artifacts_dir", "artifacts_url", "database_url"):
        monkeypatch.setenv(f"NEVERSEEN_{name.upper()}", str(getattr(here, name)))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(command_line, list(arguments))
        assert result.exit_code == 0, result.output
        return result.output

    assert "In the store: 1 versions" in run("sketches", "upload")
    ObjectStore(str(here.artifacts_url)).write("old/abc/plan.json", b"{}")
    assert "old/abc (in the store)" in run("sketches", "gc", "--idle-hours", "0", "--dry-run")
    assert "Removed 1" in run("sketches", "gc", "--idle-hours", "0", "--yes")
    shutil.rmtree(here.artifacts_dir)
    answer = run("predict", "tiny", "--document", "3", "--text", "max", "--verify")
    assert "max" in answer


# Settings


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("/srv/artifacts", "not an object store"),
        ("file:///srv/artifacts", "not an object store"),
        ("https://example.org", "not at https://"),
        ("s3://", "BUCKET/PREFIX"),
    ],
)
def test_a_setting_that_names_no_store_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Settings(artifacts_url=url)


def test_a_client_that_is_missing_is_said_when_the_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ValidationError, match=r"pip install 'neverseen\[s3\]'"):
        Settings(artifacts_url="s3://bucket/artifacts")


def test_a_locations_place_is_the_same_here_and_there() -> None:
    artifacts = Settings(data_dir=Path("/srv"), artifacts_url="s3://bucket/artifacts/").artifacts
    assert artifacts.path("names/0123") == Path("/srv/artifacts/names/0123")
    assert artifacts.origin("names/0123") == "s3://bucket/artifacts/names/0123"
    assert Settings(data_dir=Path("/srv")).artifacts.origin("names/0123") is None


def test_a_backup_is_whole_whatever_goes_meanwhile(
    database: Database, here: Settings, built: SketchVersion, tmp_path: Path
) -> None:
    of = artifact(database, here)
    supplements.add(of.open(files=()), NAMES, [[1], [3]])
    gone: list[Path] = []

    def remove(done: int, total: int) -> None:
        assert done <= total
        if not gone:
            supplements.remove(of.path, [1], url=of.origin)
            gone.append(of.path / PARAMETERS)
            gone[0].unlink()

    made = back_up(here, tmp_path / "backup", dump=None, progress=remove)
    assert (made.versions, made.damaged, len(gone)) == (1, (), 1)
    copy = tmp_path / "backup" / "artifacts" / built.location
    assert supplements.read(open_artifact(copy, checksum=built.checksum)).sets == [(3,)]


def test_what_is_restored_isnt_dropped_because_the_store_has_lost_it(
    database: Database, here: Settings, built: SketchVersion, tmp_path: Path
) -> None:
    of = artifact(database, here)
    supplements.add(of.open(files=()), NAMES, [[3]])
    back_up(here, tmp_path / "backup", dump=None, progress=lambda *_: None)
    store = supplements.store_at(str(of.origin))
    store.remove(*store.names())
    restored = here.model_copy(update={"artifacts_dir": tmp_path / "backup" / "artifacts"})
    assert new_predictor().load(artifact(database, restored)).label == built.label
    assert sets_of(artifact(database, restored)) == [(3,)]


@pytest.mark.usefixtures("sketch")
def test_another_sketch_in_the_place_of_one_keeps_no_other_from_being_uploaded(
    database: Database, settings: Settings, url: str, tmp_path: Path
) -> None:
    moving = settings.model_copy(update={"artifacts_url": f"{url}/artifacts"})
    build_sketch(
        database,
        settings,
        sketch="a-second",
        dataset="names",
        configuration=CONFIGURATION,
        progress=lambda *_: None,
    )
    with transaction(database, writes=False) as session:
        place = catalog.get_version(session, "a-second").location
    ObjectStore(f"{url}/artifacts/{place}").write("notes.txt", b"somebody else's")
    uploaded = upload_artifacts(database, moving)
    assert uploaded.versions == 1
    [sentence] = uploaded.damaged
    assert sentence.startswith("a-second v1: The destination holds other things")
    assert new_predictor().load(artifact(database, moving)).label == "tiny v1"


@pytest.mark.usefixtures("sketch")
def test_models_of_before_the_store_was_set_are_served_until_they_are_uploaded(
    database: Database, settings: Settings, url: str
) -> None:
    supplements.add(artifact(database, settings).open(files=()), NAMES, [[3]])
    moving = settings.model_copy(update={"artifacts_url": f"{url}/artifacts"})
    predictor = new_predictor()
    of = artifact(database, moving)
    assert predictor.load(of).label == "tiny v1"
    Sharing(database, predictor, moving.artifacts).look()
    assert sets_of(of) == [(3,)]
    assert upload_artifacts(database, moving).models == 1
    assert [len(names) for names in models_of(of)] == [1, 1]
