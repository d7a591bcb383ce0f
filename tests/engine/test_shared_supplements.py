"""Models retrained beside an artifact of a store: every copy follows the store, and what was removed stays removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs

from engine.configuration import SketchConfiguration
from engine.copies import fetch
from engine.documents import Documents
from engine.errors import StoreError
from engine.remote import upload
from engine.sketch import build
from engine.store import Artifact
from engine.supplement_file import file_name
from engine.supplements import (
    add,
    contains,
    directory_of,
    disown,
    is_copy,
    read,
    refresh,
    remove,
    share,
    stamp,
    store_at,
    synchronise,
)
from tests.engine.test_locations import put
from tests.stores import Proxy, bucket_behind, new_clients


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration
) -> Artifact:
    return build(documents, configuration, tmp_path_factory.mktemp("sketch") / "artifact")


@pytest.fixture
def origin(url: str, built: Artifact) -> str:
    upload(built, f"{url}/one")
    return f"{url}/one"


@pytest.fixture
def here(origin: str, tmp_path: Path) -> Artifact:
    """The copy of one machine."""
    return fetch(origin, tmp_path / "here" / "one")


@pytest.fixture
def there(origin: str, tmp_path: Path) -> Artifact:
    """The copy of another machine."""
    return fetch(origin, tmp_path / "there" / "one", files=())


def models(artifact: Artifact) -> set[str]:
    """Names of the models in a copy."""
    return {path.name for path in directory_of(artifact).glob("*.safetensors")}


def follow(artifact: Artifact) -> None:
    assert artifact.origin is not None
    synchronise(artifact.path, artifact.origin)


def test_what_is_added_on_one_machine_is_known_on_another(
    here: Artifact, there: Artifact, documents: Documents
) -> None:
    add(here, documents, [[1], [2, 3]])
    assert not contains(there, [1])
    before = stamp(there)
    follow(there)
    assert read(there).sets == read(here).sets == [(1,), (2, 3)]
    assert (read(there).models == read(here).models).all()
    assert stamp(there) != before
    before = stamp(there)
    follow(there)
    assert stamp(there) == before  # nothing is read again where nothing is new


def test_what_is_removed_goes_from_the_store_and_from_every_copy(
    here: Artifact, there: Artifact, origin: str, documents: Documents
) -> None:
    add(here, documents, [[1], [1, 2], [3]])
    follow(there)
    assert remove(here.path, [1], url=origin) == 2
    assert read(here).sets == [(3,)]  # the control: what isn't about it stays
    assert store_at(origin).names() == models(here)
    assert len(read(there).sets) == 3
    follow(there)
    assert read(there).sets == [(3,)]
    assert models(there) == store_at(origin).names()


def test_a_stale_copy_brings_nothing_back(here: Artifact, there: Artifact, origin: str, documents: Documents) -> None:
    add(here, documents, [[1], [3]])
    follow(there)
    remove(here.path, [1], url=origin)
    add(there, documents, [[1], [5]])  # it has [1], and doesn't know yet that it is gone
    follow(here)
    assert read(here).sets == [(3,), (5,)]
    follow(there)
    assert read(there).sets == [(3,), (5,)]


def test_what_only_the_store_has_is_removed_from_it(
    here: Artifact, there: Artifact, origin: str, documents: Documents
) -> None:
    add(here, documents, [[1], [3]])
    store_at(origin).write(f"{'1' * 64}.safetensors", b"damaged, so that it doesn't tell whose it is")
    assert remove(there.path, [1], url=origin) == 2  # by a machine that had none of it
    assert read(there).sets == [(3,)]
    assert len(store_at(origin).names()) == 1


def test_what_is_damaged_here_is_fetched_again_and_what_is_damaged_there_is_said(
    here: Artifact, origin: str, documents: Documents
) -> None:
    add(here, documents, [[1], [3]])
    one, three = sorted(directory_of(here).glob("*.safetensors"))
    sound = one.read_bytes()
    one.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert len(read(here).damaged) == 1
    refresh(here)
    assert (one.read_bytes(), read(here).damaged) == (sound, ())
    store_at(origin).write(three.name, three.read_bytes()[:-1] + b"x")
    three.unlink()
    refresh(here)
    assert len(read(here).damaged) == 1
    add(here, documents, [[1], [3]])  # retrained, and put in the place of what is damaged
    assert read(here).damaged == ()
    assert store_at(origin).read(three.name) == three.read_bytes()


def test_a_supplement_that_was_no_copy_is_put_into_the_store_where_it_is_sound(
    built: Artifact, url: str, documents: Documents, tmp_path: Path
) -> None:
    local = build(documents, built.manifest.configuration, tmp_path / "local")
    add(local, documents, [[1], [3]])
    damaged = directory_of(local) / f"{'1' * 64}.safetensors"
    damaged.write_bytes(b"damaged")
    upload(local, f"{url}/one")
    shared = dataclasses.replace(local, origin=f"{url}/one")
    assert (share(shared), share(shared)) == (2, 0)
    assert store_at(f"{url}/one").names() == models(local) - {damaged.name}
    follow(shared)
    assert damaged.exists()  # it is here only, and may be of a later release


def test_what_was_retrained_before_there_was_a_store_stays_until_it_is_uploaded(
    built: Artifact, origin: str, documents: Documents, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = build(documents, built.manifest.configuration, tmp_path / "local")
    add(local, documents, [[1], [3]])
    shared = dataclasses.replace(local, origin=origin)
    for _ in range(2):
        refresh(shared)
        follow(shared)
    assert read(local).sets == [(1,), (3,)]
    assert not is_copy(local.path, origin)
    [said] = [record.getMessage() for record in caplog.records if "sketches upload" in record.getMessage()]
    assert "2 retrained models" in said
    assert remove(local.path, [1], url=origin) == 1  # an erasure reaches it nevertheless
    assert read(local).sets == [(3,)]
    assert share(shared) == 1
    assert is_copy(local.path, origin)
    assert not is_copy(local.path, f"{origin}-2")
    store_at(origin).remove(*store_at(origin).names())
    synchronise(local.path, f"{origin}-2")  # the control: another store, which has nothing either
    assert read(local).sets == [(3,)]
    follow(shared)
    assert read(local).sets == []


def test_a_copy_that_is_disowned_keeps_what_it_has(here: Artifact, origin: str, documents: Documents) -> None:
    add(here, documents, [[1]])
    assert is_copy(here.path, origin)
    disown(here.path)
    store_at(origin).remove(*store_at(origin).names())
    follow(here)
    assert read(here).sets == [(1,)]


@pytest.mark.parametrize(
    "name", [f"../{'1' * 64}.safetensors", "../evil.safetensors", f"/tmp/{'1' * 64}.safetensors", f"a//{'1' * 64}"]
)
def test_names_of_a_store_lead_nowhere_else(there: Artifact, origin: str, name: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    put(store_at(origin), name)
    with pytest.raises(StoreError, match="no file can be named like"):
        follow(there)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["evil.safetensors", f"sub/{'1' * 64}.safetensors", f"{'A' * 64}.safetensors", "x"])
def test_what_isnt_named_as_a_model_isnt_fetched(
    here: Artifact, there: Artifact, origin: str, name: str, documents: Documents
) -> None:
    add(here, documents, [[3]])
    store_at(origin).write(name, b"evil")
    follow(there)
    assert models(there) == models(here)
    assert remove(here.path, [3], url=origin) == 1
    assert store_at(origin).entries().keys() == {name}


def test_a_file_that_cant_be_removed_keeps_no_other(
    here: Artifact, there: Artifact, origin: str, documents: Documents
) -> None:
    add(here, documents, [[1], [2], [3]])
    follow(there)
    (directory_of(there) / "0").mkdir()
    (directory_of(here) / "0").mkdir()
    with pytest.raises(OSError, match="0"):
        remove(there.path, [1])
    assert read(there).sets == [(2,), (3,)]
    with pytest.raises(OSError, match="0"):
        remove(here.path, [1], url=origin)
    assert (read(here).sets, store_at(origin).names()) == ([(2,), (3,)], models(here))


def test_an_erasure_that_fails_in_the_store_is_complete_the_next_time(
    s3: str, built: Artifact, documents: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a bucket that keeps versions nothing of it is left, nor of what somebody has only hidden."""
    bucket = s3.removeprefix("s3://")
    s3fs.S3FileSystem().call_s3("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    upload(built, f"{s3}/one")
    here = fetch(f"{s3}/one", tmp_path / "one", files=())
    add(here, documents, [[1], [2], [3]])
    store = store_at(f"{s3}/one")
    [hidden] = [path.name for path in directory_of(here).glob("*.safetensors") if path.name in names_of(here, [2])]
    s3fs.S3FileSystem().rm_file(f"{bucket}/one.anchors/{hidden}")
    real, refusals = s3fs.S3FileSystem.call_s3, iter([True])

    def call(self: s3fs.S3FileSystem, method: str, **arguments: object) -> object:
        if method == "delete_object" and next(refusals, False):
            raise PermissionError("Access Denied")
        return real(self, method, **arguments)

    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", call)
    with pytest.raises(StoreError, match="rights"):
        remove(here.path, [1], url=store.url.removesuffix(".anchors"))
    assert names_of(here, [1]) <= store.names()  # still to be seen
    assert read(here).sets == [(3,)]
    assert remove(here.path, [1], url=store.url.removesuffix(".anchors")) == 1
    assert store.entries(hidden=True).keys() == names_of(here, [3])


def names_of(artifact: Artifact, units: list[int]) -> set[str]:
    return {file_name(artifact.checksum, units)}


def test_what_is_removed_while_the_store_is_away_is_gone_here_and_goes_there_the_next_time(
    s3_port: int, built: Artifact, documents: Documents, tmp_path: Path
) -> None:
    proxy = Proxy(s3_port)
    with new_clients(), bucket_behind(proxy.port) as url:
        upload(built, f"{url}/one")
        here = fetch(f"{url}/one", tmp_path / "one", files=())
        add(here, documents, [[1], [3]])
        proxy.cut()
        with pytest.raises(StoreError, match="is away"):
            remove(here.path, [1], url=f"{url}/one", patience_seconds=0.1)
        assert read(here).sets == [(3,)]
        proxy.restore()
        assert len(store_at(f"{url}/one").names()) == 2
        assert remove(here.path, [1], url=f"{url}/one") == 1
        assert len(store_at(f"{url}/one").names()) == 1
    proxy.close()


def test_what_is_here_costs_no_requests_and_a_look_one(
    s3: str, built: Artifact, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upload(built, f"{s3}/one")
    fetch(f"{s3}/one", tmp_path / "one")

    def requests(act: Callable[[], object]) -> list[str]:
        caplog.clear()
        with caplog.at_level("INFO", "werkzeug"):  # the server's log: a line a request
            act()
        return [record.getMessage().split('"')[1] for record in caplog.records if record.name == "werkzeug"]

    assert len(requests(lambda: fetch(f"{s3}/one", tmp_path / "two"))) == 2 * (len(built.manifest.files) + 1)
    assert requests(lambda: fetch(f"{s3}/one", tmp_path / "one")) == []
    assert requests(lambda: fetch(f"{s3}/one", tmp_path / "one", files=())) == []
    store_at(f"{s3}/one").write(f"{'0' * 64}.safetensors", b"x")
    synchronise(tmp_path / "one", f"{s3}/one")
    [look] = requests(lambda: synchronise(tmp_path / "one", f"{s3}/one"))
    assert "list-type=2" in look
