"""Object stores: one behaviour over memory and S3, and what is refused at once or tried again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import s3fs

from engine.errors import ArtifactError, ConfigurationError, StoreError
from engine.locations import ObjectStore, parse_location
from tests.stores import Proxy, bucket_behind, enforced_rights, new_clients, user

STORAGE = Path(__file__).parents[2] / "docs" / "storage.md"


@pytest.fixture
def store(url: str) -> ObjectStore:
    return ObjectStore(f"{url}/artifacts/one")


@pytest.fixture
def proxied(s3_port: int) -> Iterator[tuple[Proxy, ObjectStore]]:
    """A store behind a proxy."""
    proxy = Proxy(s3_port)
    with new_clients(), bucket_behind(proxy.port) as url:
        yield proxy, ObjectStore(f"{url}/artifacts", patience_seconds=20)
    proxy.close()


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("var/artifacts", Path("var/artifacts")),
        ("/srv/a", Path("/srv/a")),
        ("file:///srv/with%20space", Path("/srv/with space")),
        ("s3://bucket/some/prefix/", "s3://bucket/some/prefix"),
        ("gs://bucket", "gs://bucket"),
        ("memory://tests", "memory://tests"),
    ],
)
def test_a_location_is_a_directory_or_a_store(text: str, location: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.locations.find_spec", lambda _: object())  # as if every client were installed
    assert parse_location(text) == location


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://example.org/a", "not at https://"),
        ("ftp://example.org", "not at ftp://"),
        ("s3://", "s3://BUCKET/PREFIX"),
        ("s3:///prefix", "s3://BUCKET/PREFIX"),
        ("s3://key:secret@bucket/prefix", "nothing more"),
        ("s3://bucket/a?versionId=3", "nothing more"),
        ("file://host/a", "three slashes"),
    ],
)
def test_what_is_no_location_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_location(text)


@pytest.mark.parametrize(("url", "module", "extra"), [("s3://bucket/a", "s3fs", "s3"), ("gs://b/a", "gcsfs", "gcs")])
def test_a_client_that_isnt_installed_is_named_by_its_extra(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'neverseen\[{extra}\]'"):
        parse_location(url)


def test_no_client_is_imported_for_directories() -> None:
    script = "import sys, engine.sketch, engine.locations; engine.locations.parse_location('a'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {"s3fs", "botocore", "gcsfs", "aiohttp"}.isdisjoint(modules)


# One behaviour, whatever the kind


def test_what_was_written_is_read_and_listed(store: ObjectStore, tmp_path: Path) -> None:
    assert (store.names(), store.entries(), store.read_all()) == (set(), {}, {})
    store.write("a", b"first")
    store.write("a", b"second")
    store.within("deeper").write("b", b"")
    (tmp_path / "c").write_bytes(b"of a file")
    store.upload(tmp_path / "c", "c")
    assert (store.read("a"), store.find("c"), store.size("a"), store.size("deeper/b")) == (
        b"second",
        b"of a file",
        6,
        0,
    )
    assert store.names() == {"a", "c"}
    assert store.read_all() == {"a": b"second", "c": b"of a file"}
    entries = store.entries()
    assert {name: entry.bytes for name, entry in entries.items()} == {"a": 6, "c": 9, "deeper/b": 0}
    for entry in entries.values():
        assert entry.changed_at is not None
        assert abs(entry.changed_at.timestamp() - time.time()) < 60
    assert ObjectStore(store.url.removesuffix("/one")).entries().keys() == {f"one/{name}" for name in entries}
    store.download("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"second"
    assert ForkingPickler.loads(ForkingPickler.dumps(store)).names() == {"a", "c"}


def test_a_directory_isnt_one_whose_name_only_begins_alike(store: ObjectStore) -> None:
    ObjectStore(f"{store.url}.anchors").write("other", b"x")
    store.write("mine", b"x")
    assert store.entries().keys() == {"mine"}


def test_what_isnt_there_is_missing_and_removing_it_is_no_mistake(store: ObjectStore, tmp_path: Path) -> None:
    store.remove("nothing")
    assert (store.find("nothing"), store.size("nothing")) == (None, None)
    for attempt in (lambda: store.read("nothing"), lambda: store.download("nothing", tmp_path / "nothing")):
        with pytest.raises(ArtifactError, match="nothing is missing"):
            attempt()
    assert list(tmp_path.iterdir()) == []
    store.write("a", b"x")
    store.remove("a")
    assert store.names() == set()


def test_of_several_who_create_one_succeeds(store: ObjectStore) -> None:
    created: list[bytes] = []

    def create(content: bytes) -> None:
        if store.create("manifest", content):
            created.append(content)

    threads = [threading.Thread(target=create, args=(str(number).encode(),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created == [store.read("manifest")]
    assert store.create("manifest", created[0])  # as where the answer to the first try was lost
    assert not store.create("manifest", b"another")


def test_a_bucket_that_keeps_versions_keeps_none_of_what_is_removed(s3: str) -> None:
    client = s3fs.S3FileSystem()
    bucket = s3.removeprefix("s3://")
    client.call_s3("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    store = ObjectStore(f"{s3}/artifacts")
    for content in (b"a person's", b"a person's again"):
        store.write("model", content)
    store.write("model-2", b"another's")

    def versions() -> list[str]:
        found = client.call_s3("list_object_versions", Bucket=bucket)
        return [one["Key"] for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ()))]

    client.rm_file(f"{bucket}/artifacts/model")  # the control: who deletes as usual hides it only
    assert versions().count("artifacts/model") == 3
    store.remove("model")
    assert versions() == ["artifacts/model-2"]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL"])
def test_another_s3_than_amazons_is_named_by_the_environment(s3: str, s3_port: int, name: str) -> None:
    """In a process of its own: fsspec reads its variables once."""
    script = "import sys; from engine.locations import ObjectStore; ObjectStore(sys.argv[1]).write('a', b'x')"
    environment = {variable: value for variable, value in os.environ.items() if variable != "AWS_ENDPOINT_URL"}
    environment[name] = f"http://127.0.0.1:{s3_port}"
    subprocess.run([sys.executable, "-c", script, f"{s3}/artifacts"], env=environment, check=True)
    assert ObjectStore(f"{s3}/artifacts").names() == {"a"}


def test_the_rights_that_are_documented_are_enough(
    s3: str, s3_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = s3.removeprefix("s3://")
    [policy] = re.findall(r"```json\n(.*?)```", STORAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    key, secret = user(s3_port, policy=policy.replace("BUCKET", bucket).replace("PREFIX", "artifacts"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    store = ObjectStore(f"{s3}/artifacts")
    with new_clients(), enforced_rights(s3_port):
        store.write("a", b"x")
        assert store.create("b", b"x")
        assert (store.read("a"), store.find("nothing"), store.size("nothing")) == (b"x", None, None)
        store.download("a", tmp_path / "a")
        assert store.names() == {"a", "b"}
        store.remove("a")
        assert store.names() == {"b"}
        with pytest.raises(StoreError, match="Check credentials and rights"):
            ObjectStore(f"{s3}/elsewhere").write("a", b"x")


# Refused at once


def test_a_bucket_that_isnt_there_is_refused_at_once(s3: str, tmp_path: Path) -> None:
    store = ObjectStore(f"{s3}-not/artifacts")
    (tmp_path / "file").write_bytes(b"x")
    started = time.monotonic()
    for attempt in (
        lambda: store.write("a", b"x"),
        lambda: store.upload(tmp_path / "file", "a"),
        lambda: store.create("a", b"x"),
        lambda: store.read("a"),
        store.names,
    ):
        with pytest.raises(StoreError, match="no such bucket"):
            attempt()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("who", ["a user without rights", "nobody"])
def test_missing_rights_are_refused_at_once(s3: str, s3_port: int, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    store = ObjectStore(f"{s3}/artifacts")
    key, secret = ("AKIAUNKNOWN", "unknown") if who == "nobody" else user(s3_port)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    started = time.monotonic()
    with new_clients(), enforced_rights(s3_port):
        for attempt in (lambda: store.write("a", b"x"), lambda: store.read("a"), store.names):
            with pytest.raises(StoreError, match="Check credentials and rights"):
                attempt()
    assert time.monotonic() - started < 5


def test_missing_credentials_are_refused_at_once(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with new_clients(), pytest.raises(StoreError, match="no credentials"):
        ObjectStore(f"{s3}/artifacts").write("a", b"x")


# Away, and back


def test_what_was_begun_while_the_store_was_away_is_done_when_it_is_back(
    proxied: tuple[Proxy, ObjectStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy, store = proxied
    store.write("a", b"before")
    acts: list[Callable[[], object]] = [
        lambda: store.write("b", b"after"),
        lambda: store.download("a", tmp_path / "a"),
    ]
    for act in acts:
        proxy.cut()
        with proxy.restored_when_noticed():
            act()
    assert (tmp_path / "a").read_bytes() == b"before"
    assert store.read_all() == {"a": b"before", "b": b"after"}
    assert len([record for record in caplog.records if "Trying again" in record.getMessage()]) >= 2


def test_a_download_that_is_cut_in_the_middle_ends_whole(proxied: tuple[Proxy, ObjectStore], tmp_path: Path) -> None:
    proxy, store = proxied
    content = bytes(range(256)) * 16_384
    store.write("large", content)
    proxy.cut(after_bytes=len(content) // 3)
    with proxy.restored_when_noticed():
        store.download("large", tmp_path / "large")
    assert (tmp_path / "large").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_a_store_that_stays_away_is_given_up(proxied: tuple[Proxy, ObjectStore], tmp_path: Path) -> None:
    proxy, store = proxied
    proxy.cut()
    impatient = ObjectStore(store.url, patience_seconds=0.2)
    attempts: list[Callable[[], object]] = [
        lambda: impatient.write("a", b"x"),
        lambda: impatient.download("a", tmp_path / "a"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="is away"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cant_be_written_is_no_store_that_is_away(store: ObjectStore, tmp_path: Path) -> None:
    store.write("a", b"x")
    (tmp_path / "file").write_text("where a directory belongs")
    started = time.monotonic()
    with pytest.raises(ArtifactError) as error:
        store.download("a", tmp_path / "file" / "a")
    assert not isinstance(error.value, StoreError)
    assert time.monotonic() - started < 5
