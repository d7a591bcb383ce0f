"""Artifacts in object stores: built there, uploaded and fetched; whole or not there, whatever happens meanwhile."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
import threading
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from engine.blocks import Job
from engine.configuration import SketchConfiguration
from engine.copies import drop_incomplete, fetch
from engine.documents import Documents
from engine.errors import ArtifactError, ConfigurationError, StoreError
from engine.locations import Location, ObjectStore
from engine.remote import Published, RemoteWorkspace, find_published, open_workspace, upload
from engine.sketch import build
from engine.store import MANIFEST, PARAMETERS, Artifact, File, Plan, open_artifact, read_tensors, serialised_manifest
from engine.tasks import train_block
from engine.workspace import LOCK, Workspace
from tests.stores import Proxy, bucket_behind, new_clients


@pytest.fixture(scope="module")
def artifact(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration
) -> Artifact:
    return build(documents, configuration, tmp_path_factory.mktemp("sketch") / "artifact")


@pytest.fixture
def place(url: str, artifact: Artifact) -> str:
    """The URL of the artifact in a store."""
    upload(artifact, f"{url}/sketch/one")
    return f"{url}/sketch/one"


@pytest.fixture(params=["directory", "memory", "s3"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Where nothing is built yet."""
    match request.param:
        case "directory":
            return tmp_path / "built"
        case "memory":
            return f"memory://{uuid4().hex}/built"
        case _:
            return f"{request.getfixturevalue('s3')}/built"


def opened(built: Artifact | Published, copy: Path) -> Artifact:
    return built if isinstance(built, Artifact) else fetch(built.url, copy, checksum=built.checksum)


# Builds, wherever they go


def test_a_build_is_the_same_wherever_it_goes(
    destination: Location, artifact: Artifact, documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> None:
    built = build(documents, configuration, destination)
    assert built.manifest.files == artifact.manifest.files  # sizes and SHA-256
    assert build(documents, configuration, destination) == built
    assert opened(built, tmp_path / "copy").manifest.files == artifact.manifest.files
    if isinstance(destination, str):
        assert ObjectStore(destination).entries().keys() == {MANIFEST, *artifact.manifest.files}
    with pytest.raises(ConfigurationError, match="another sketch"):
        build(documents, dataclasses.replace(configuration, seed=9), destination)


def test_a_build_that_was_interrupted_goes_on_with_what_it_finished(
    destination: Location, artifact: Artifact, tmp_path: Path
) -> None:
    plan, files = artifact.manifest.plan, artifact.manifest.files
    first, *others = sorted(files)
    with open_workspace(destination, plan) as workspace:
        file = workspace.save(first, read_tensors(artifact.path / first))
        assert (file, workspace.files.find(first), workspace.files.find(others[0])) == (
            files[first],
            files[first],
            None,
        )
        assert workspace.seconds(2.5) == 2.5
    with open_workspace(destination, plan) as workspace:
        assert {name for name in files if workspace.has(name)} == {first}
        assert workspace.seconds(1) == 3.5
        remote = ForkingPickler.loads(ForkingPickler.dumps(workspace.files))  # as for a process on another machine
        known = {name: remote.save(name, read_tensors(artifact.path / name)) for name in others[:2]}
        for name in others[2:]:
            remote.save(name, read_tensors(artifact.path / name))
        assert workspace.describe(known) == workspace.describe() == files
        published = workspace.publish(artifact.manifest)
    assert published.checksum == artifact.checksum
    assert opened(published, tmp_path / "copy").manifest == artifact.manifest


def test_what_another_plan_left_is_removed(destination: Location, artifact: Artifact) -> None:
    plan = artifact.manifest.plan
    other = dataclasses.replace(plan, execution=dataclasses.replace(plan.execution, native=not plan.execution.native))
    with open_workspace(destination, other) as workspace:
        workspace.save(PARAMETERS, read_tensors(artifact.path / PARAMETERS))
    with open_workspace(destination, plan) as workspace:
        assert not workspace.has(PARAMETERS)
        assert workspace.describe() == {}
    where = destination.with_name("built.partial").iterdir() if isinstance(destination, Path) else None
    left = {path.name for path in where} if where else ObjectStore(str(destination)).entries().keys()
    assert left - {LOCK} == {"plan.json"}


def test_a_build_whose_place_another_plan_takes_ends_at_its_next_file_and_leaves_no_mixture(
    url: str, artifact: Artifact, tmp_path: Path
) -> None:
    plan = artifact.manifest.plan
    other = dataclasses.replace(plan, execution=dataclasses.replace(plan.execution, device="cuda"))
    tensors = read_tensors(artifact.path / PARAMETERS)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "other")
    slow, fast = RemoteWorkspace(ObjectStore(url), other), RemoteWorkspace(ObjectStore(url), plan)
    with pytest.raises(ConfigurationError, match="Another build has taken this place"):
        slow.save(PARAMETERS, read_tensors(tmp_path / "other"))
    # One that looked just before its place was taken writes a file and no more, and nobody takes that for his own.
    ObjectStore(url).write(PARAMETERS, (tmp_path / "other").read_bytes())
    assert not RemoteWorkspace(ObjectStore(url), plan).has(PARAMETERS)
    for name in artifact.manifest.files:
        fast.save(name, read_tensors(artifact.path / name))
    with pytest.raises(ConfigurationError, match="Another build has taken this place"):
        slow.publish(artifact.manifest)
    published = fast.publish(artifact.manifest)
    assert fetch(url, tmp_path / "copy", checksum=published.checksum).manifest == artifact.manifest
    with pytest.raises(ConfigurationError, match="An artifact has this place"):
        RemoteWorkspace(ObjectStore(url), other)
    before = ObjectStore(url).read_all()
    with pytest.raises(ConfigurationError, match="An artifact has this place"):
        slow.save(PARAMETERS, read_tensors(tmp_path / "other"))
    assert ObjectStore(url).read_all() == before


@pytest.mark.parametrize("name", ["notes.txt", "backups/2024.tar", "names/one/manifest.json", ".building/mine.txt"])
def test_a_place_that_holds_other_things_is_refused_and_they_stay(
    url: str, artifact: Artifact, documents: Documents, configuration: SketchConfiguration, name: str
) -> None:
    store = ObjectStore(url)
    left = {name, "parameters.safetensors", ".building/0123456789abcdef/parameters.safetensors.json"}
    for one in left:
        store.write(one, b"precious")
    with pytest.raises(ConfigurationError, match="holds other things; choose another place"):
        build(documents, configuration, url)
    with pytest.raises(ConfigurationError, match="holds other things; choose another place"):
        upload(artifact, url)
    assert store.entries().keys() == left
    store.remove(name)
    assert upload(artifact, url).checksum == artifact.checksum  # the control
    assert store.entries().keys() == {MANIFEST, *artifact.manifest.files}


def test_what_others_put_beside_a_build_meanwhile_stays(url: str, artifact: Artifact) -> None:
    workspace = RemoteWorkspace(ObjectStore(url), artifact.manifest.plan)
    for name in artifact.manifest.files:
        workspace.save(name, read_tensors(artifact.path / name))
    others = {"notes.txt", "backups/2024.tar", ".building/mine.txt"}
    for name in others:
        ObjectStore(url).write(name, b"precious")
    workspace.publish(artifact.manifest)
    assert ObjectStore(url).entries().keys() == {MANIFEST, *artifact.manifest.files} | others


@pytest.mark.parametrize("killed_at", ["before the plan", "after the plan"])
def test_a_takeover_that_is_killed_leaves_no_notice_to_believe(
    url: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    plan, store = artifact.manifest.plan, ObjectStore(url)
    other = dataclasses.replace(plan, execution=dataclasses.replace(plan.execution, device="cuda"))
    RemoteWorkspace(store, plan).save(PARAMETERS, read_tensors(artifact.path / PARAMETERS))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    real = ObjectStore.write

    def written_and_killed(self: ObjectStore, name: str, content: bytes) -> None:
        real(self, name, content)
        killed()

    def take(of: Plan) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStore, "write", killed if killed_at == "before the plan" else written_and_killed)
            with pytest.raises(KeyboardInterrupt):
                RemoteWorkspace(store, of)

    take(other)
    RemoteWorkspace(store, other).save(PARAMETERS, rounded_otherwise(artifact, PARAMETERS))  # of the same size
    take(plan)
    assert not RemoteWorkspace(store, plan).has(PARAMETERS)


def rounded_otherwise(artifact: Artifact, name: str) -> dict[str, Tensor]:
    """The tensors of a file as another processor might have made them."""
    return {key: torch.nextafter(value, value + 1) for key, value in read_tensors(artifact.path / name).items()}


def test_a_twin_takes_what_is_finished_and_writes_nothing_over_it(url: str, artifact: Artifact) -> None:
    first, second = [RemoteWorkspace(ObjectStore(url), artifact.manifest.plan) for _ in range(2)]
    for name, file in artifact.manifest.files.items():
        first.save(name, read_tensors(artifact.path / name))
        assert second.save(name, rounded_otherwise(artifact, name)) == file
    assert second.publish(artifact.manifest).checksum == artifact.checksum
    for name, file in artifact.manifest.files.items():
        assert hashlib.sha256(ObjectStore(url).read(name)).hexdigest() == file.sha256


def test_a_twin_adopts_what_is_published_meanwhile_and_damages_nothing(
    url: str, artifact: Artifact, tmp_path: Path
) -> None:
    store, (one, *others) = ObjectStore(url), sorted(artifact.manifest.files)
    twin = RemoteWorkspace(store, artifact.manifest.plan)
    twin.save(one, read_tensors(artifact.path / one))
    upload(artifact, url)
    before = store.read_all()
    assert twin.files.find(others[0]) == artifact.manifest.files[others[0]]
    for name in others:
        assert twin.save(name, rounded_otherwise(artifact, name)) == artifact.manifest.files[name]
        twin.upload(name, artifact.path / one, artifact.manifest.files[one])
    assert twin.seconds(2.0) == 2.0
    assert store.read_all() == before
    assert store.entries().keys() == before.keys()
    files = {name: dataclasses.replace(file, sha256="0" * 64) for name, file in artifact.manifest.files.items()}
    published = twin.publish(dataclasses.replace(artifact.manifest, files=files))
    assert (published, store.read_all()) == (find_published(url), before)
    later = RemoteWorkspace(store, artifact.manifest.plan)  # one that begins only now
    assert all(later.has(name) for name in artifact.manifest.files)
    assert later.publish(artifact.manifest) == published
    assert fetch(url, tmp_path / "copy").checksum == artifact.checksum


def test_an_upload_of_a_twin_that_rounds_otherwise_is_whole(url: str, artifact: Artifact, tmp_path: Path) -> None:
    twin = RemoteWorkspace(ObjectStore(url), artifact.manifest.plan)
    for name in artifact.manifest.files:
        twin.save(name, rounded_otherwise(artifact, name))
    upload(artifact, url)
    assert fetch(url, tmp_path / "copy").checksum == artifact.checksum


def test_a_build_whose_place_was_removed_ends(url: str, artifact: Artifact) -> None:
    workspace = RemoteWorkspace(ObjectStore(url), artifact.manifest.plan)
    ObjectStore(url).remove("plan.json")
    with pytest.raises(ConfigurationError, match="was removed meanwhile; start the build again"):
        workspace.save(PARAMETERS, read_tensors(artifact.path / PARAMETERS))
    assert ObjectStore(url).entries() == {}


def test_a_node_takes_the_block_of_a_twin_that_has_published(
    url: str, artifact: Artifact, documents: Documents, configuration: SketchConfiguration
) -> None:
    workspace = RemoteWorkspace(ObjectStore(url), artifact.manifest.plan)
    job = Job(plan=artifact.manifest.plan, documents=documents, files=workspace.files, device="cpu")
    upload(artifact, url)
    worked: list[int] = []
    for block in configuration.blocks(documents.unit_count):
        assert train_block(job, block, worked.append) == artifact.manifest.files[block.file]
    assert worked == []


def test_a_build_returns_what_a_twin_publishes_in_the_middle_of_it(
    url: str, artifact: Artifact, documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> None:
    def publish(done: int, total: int) -> None:
        if 0 < done < total and find_published(url) is None:
            upload(artifact, url)

    assert build(documents, configuration, url, progress=publish) == find_published(url)
    assert fetch(url, tmp_path / "copy").checksum == artifact.checksum
    assert ObjectStore(url).entries().keys() == {MANIFEST, *artifact.manifest.files}


def test_of_two_builds_of_one_plan_there_is_one_artifact(url: str, artifact: Artifact, tmp_path: Path) -> None:
    twins = [RemoteWorkspace(ObjectStore(url), artifact.manifest.plan) for _ in range(2)]
    for name in artifact.manifest.files:
        for twin in twins:
            twin.save(name, read_tensors(artifact.path / name))
    manifests = [dataclasses.replace(artifact.manifest, build_seconds=seconds) for seconds in (1.0, 2.0)]
    first, second = [twin.publish(manifest) for twin, manifest in zip(twins, manifests, strict=True)]
    assert first == second
    assert (first.manifest.build_seconds, find_published(url)) == (1.0, first)
    fetch(url, tmp_path / "copy", checksum=second.checksum)
    assert ObjectStore(url).entries().keys() == {MANIFEST, *artifact.manifest.files}


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_what_isnt_there_as_it_was_written_isnt_published(url: str, artifact: Artifact, damage: str) -> None:
    store = ObjectStore(url)
    workspace = RemoteWorkspace(store, artifact.manifest.plan)
    for name in artifact.manifest.files:
        workspace.save(name, read_tensors(artifact.path / name))
    if damage == "truncated":
        store.write(PARAMETERS, store.read(PARAMETERS)[:-1])
    else:
        store.remove(PARAMETERS)
    with pytest.raises(ArtifactError, match=PARAMETERS):
        workspace.publish(artifact.manifest)
    assert find_published(url) is None
    assert not RemoteWorkspace(store, artifact.manifest.plan).has(PARAMETERS)  # it is trained again


# Uploads


def test_an_upload_is_the_artifact_to_the_bit(place: str, artifact: Artifact) -> None:
    store = ObjectStore(place)
    assert store.read_all() == {path.name: path.read_bytes() for path in artifact.path.iterdir()}
    assert find_published(place) == Published(url=place, manifest=artifact.manifest, checksum=artifact.checksum)
    assert upload(artifact, place) == find_published(place)


def test_an_upload_goes_on_where_it_was_cut(url: str, artifact: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifact.path, copy)
    last = list(artifact.manifest.files)[-1]
    (copy / last).unlink()
    with pytest.raises(ArtifactError, match=last):
        upload(dataclasses.replace(artifact, path=copy), url)
    assert find_published(url) is None
    finished = {
        name for name in artifact.manifest.files if RemoteWorkspace(ObjectStore(url), artifact.manifest.plan).has(name)
    }
    assert finished == artifact.manifest.files.keys() - {last}
    for name in finished:
        (copy / name).unlink()  # so that it can't be uploaded again
    shutil.copy(artifact.path / last, copy / last)
    assert upload(dataclasses.replace(artifact, path=copy), url).checksum == artifact.checksum


def test_an_upload_of_another_sketch_is_refused(
    place: str, documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> None:
    other = build(documents, dataclasses.replace(configuration, seed=9), tmp_path / "other")
    with pytest.raises(ConfigurationError, match="another sketch"):
        upload(other, place)


def test_the_artifact_of_a_twin_is_taken_over(place: str, artifact: Artifact, tmp_path: Path) -> None:
    """Two machines built the same at the same time: the one that comes second serves what the first one uploaded."""
    twin = Workspace(tmp_path / "twin", artifact.manifest.plan)
    with twin:
        for name in artifact.manifest.files:
            twin.save(name, read_tensors(artifact.path / name))
        built = twin.publish(dataclasses.replace(artifact.manifest, build_seconds=3.0))
    published = upload(built, place)
    assert published.checksum == artifact.checksum != built.checksum
    assert fetch(place, built.path, checksum=published.checksum).manifest == artifact.manifest


# Copies


def test_a_copy_has_what_was_asked_for_and_no_more(place: str, artifact: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    fetched = fetch(place, copy, checksum=artifact.checksum, files=())
    assert (fetched.manifest, fetched.origin, {path.name for path in copy.iterdir()}) == (
        artifact.manifest,
        place,
        {MANIFEST},
    )
    fetch(place, copy, files={PARAMETERS})
    assert {path.name for path in copy.iterdir()} == {MANIFEST, PARAMETERS}
    assert open_artifact(copy, files={PARAMETERS}).manifest == artifact.manifest
    with pytest.raises(ArtifactError, match="is missing"):
        open_artifact(copy)
    with pytest.raises(ArtifactError, match=r"The artifact has no directions-99999"):
        fetch(place, copy, files={"directions-99999.safetensors"})
    fetch(place, copy)
    assert {path.name for path in copy.iterdir()} == {MANIFEST, *artifact.manifest.files}


@given(data=st.data())
def test_whatever_a_copy_lacks_is_fetched_and_what_is_sound_isnt_again(
    tmp_path_factory: pytest.TempPathFactory, artifact: Artifact, data: st.DataObject
) -> None:
    place, copy = f"memory://{uuid4().hex}", tmp_path_factory.mktemp("copy") / "copy"
    upload(artifact, place)
    shutil.copytree(artifact.path, copy)
    sound = {}
    for path in sorted(copy.iterdir()):
        content = path.read_bytes()
        match data.draw(st.sampled_from(["sound", "missing", "cut", "changed", "left"]), label=path.name):
            case "missing":
                path.unlink()
            case "cut":
                path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
            case "changed":
                at = data.draw(st.integers(0, len(content) - 1))
                path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            case "left":  # by a process that was killed
                (copy / f"{path.name}.0123.part").write_bytes(content[:10])
                sound[path] = path.stat().st_ino
            case _:
                sound[path] = path.stat().st_ino
    fetched = fetch(place, copy, checksum=artifact.checksum)
    assert fetched.manifest == artifact.manifest
    assert open_artifact(copy, checksum=artifact.checksum).manifest == artifact.manifest
    if len(sound) < len(artifact.manifest.files) + 1:  # else it opened as it was
        assert {path.name for path in copy.iterdir()} == {MANIFEST, *artifact.manifest.files}
    assert {path: path.stat().st_ino for path in sound if path.name != MANIFEST} == {
        path: inode for path, inode in sound.items() if path.name != MANIFEST
    }


def test_a_block_that_is_truncated_in_the_store_is_refused(place: str, tmp_path: Path) -> None:
    store, copy = ObjectStore(place), tmp_path / "copy"
    store.write(PARAMETERS, store.read(PARAMETERS)[:-8])
    with pytest.raises(ArtifactError, match=rf"store's copy is damaged: {PARAMETERS} has .* bytes"):
        fetch(place, copy)
    assert not (copy / PARAMETERS).exists()
    assert not (copy / MANIFEST).exists()  # it comes last here, too


def test_a_block_that_came_damaged_is_fetched_once_more(place: str, artifact: Artifact, tmp_path: Path) -> None:
    store, sound = ObjectStore(place), (artifact.path / PARAMETERS).read_bytes()
    store.write(PARAMETERS, sound[:-1] + bytes([sound[-1] ^ 1]))

    class Repaired(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "once more" in record.getMessage():
                store.write(PARAMETERS, sound)

    handler, logger = Repaired(), logging.getLogger("engine.copies")
    logger.addHandler(handler)
    try:
        assert fetch(place, tmp_path / "copy").checksum == artifact.checksum
    finally:
        logger.removeHandler(handler)


def test_a_manifest_that_was_exchanged_is_refused(place: str, artifact: Artifact, tmp_path: Path) -> None:
    store = ObjectStore(place)
    exchanged = store.read(MANIFEST).replace(b'"build_seconds": ', b'"build_seconds": 1')
    store.write(MANIFEST, exchanged)
    with pytest.raises(ArtifactError, match=r"store's manifest.json has .* damaged or exchanged"):
        fetch(place, tmp_path / "copy", checksum=artifact.checksum)
    store.write(MANIFEST, b"{}")
    with pytest.raises(ArtifactError, match="isn't one of a Neverseen sketch"):
        find_published(place)
    store.remove(MANIFEST)
    with pytest.raises(ArtifactError, match=r"manifest.json is missing"):
        fetch(place, tmp_path / "copy", checksum=artifact.checksum)


def test_a_manifest_that_names_other_places_writes_nothing_there(
    place: str, artifact: Artifact, tmp_path: Path
) -> None:
    """Names of files are the configuration's, never what the store says."""
    store = ObjectStore(place)
    evil = artifact.manifest.files | {"../evil.safetensors": File(bytes=1, sha256="0" * 64)}
    store.write(MANIFEST, serialised_manifest(dataclasses.replace(artifact.manifest, files=evil)))
    store.write("../evil.safetensors", b"x")
    with pytest.raises(ArtifactError, match="doesn't fit its configuration"):
        fetch(place, tmp_path / "copy")
    assert not (tmp_path / "evil.safetensors").exists()


def test_only_a_copy_that_lacks_files_is_dropped(place: str, artifact: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert not drop_incomplete(copy)
    for files in ((), {PARAMETERS}):
        fetch(place, copy, files=files)
        assert drop_incomplete(copy)
        assert not copy.exists()
    fetch(place, copy)
    (copy / PARAMETERS).write_bytes(b"damaged")
    assert not drop_incomplete(copy)  # as one that was built here would be
    (copy / PARAMETERS).unlink()
    (copy / "notes.txt").write_text("somebody's")
    assert not drop_incomplete(copy)
    (copy / "notes.txt").unlink()
    (copy / MANIFEST).unlink()  # as where a fetch was cut, which ends with it
    assert drop_incomplete(copy)


def test_several_who_fetch_at_once_fetch_once(
    place: str, artifact: Artifact, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "engine.copies")
    checksums: list[str] = []

    def get() -> None:
        checksums.append(fetch(place, tmp_path / "copy", checksum=artifact.checksum).checksum)

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert checksums == [artifact.checksum] * 4
    assert len([record for record in caplog.records if "Fetching" in record.getMessage()]) == 1


# The cable


def test_a_store_that_goes_away_for_a_while_holds_nothing_up_for_good(
    s3_port: int, artifact: Artifact, documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> None:
    proxy = Proxy(s3_port)
    with new_clients(), bucket_behind(proxy.port) as url:
        cuts: list[int] = []

        def cut(done: int, total: int) -> None:
            if done > total / 2 and not cuts:
                cuts.append(done)
                proxy.cut()

        with proxy.restored_when_noticed():
            built = build(documents, configuration, f"{url}/built", progress=cut)
            assert built.manifest.files == artifact.manifest.files
            assert cuts
            proxy.cut(after_bytes=artifact.manifest.size_bytes // 2)
            fetched = fetch(f"{url}/built", tmp_path / "copy", checksum=built.checksum)
            assert fetched.manifest == built.manifest
        proxy.cut()
        # What is whole here needs no store; what isn't is refused, not waited for for ever.
        assert fetch(f"{url}/built", tmp_path / "copy", checksum=built.checksum).manifest == built.manifest
        with pytest.raises(StoreError, match="is away"):
            fetch(f"{url}/built", tmp_path / "another", checksum=built.checksum, patience_seconds=0.1)
    proxy.close()
