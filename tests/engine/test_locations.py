"""Object stores: one behaviour over memory and S3, and what is refused at once or tried again."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from uuid import uuid4

import boto3
import fsspec
import pytest
import s3fs
from fsspec.implementations.memory import MemoryFileSystem
from s3fs.errors import translate_boto_error

from engine.errors import ArtifactError, ConfigurationError, StoreError
from engine.locations import ObjectStore, parse_location
from engine.refusals import is_passing
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
        ("S3://Bucket/Prefix", "s3://Bucket/Prefix"),
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


@pytest.fixture
def versioned(s3: str) -> ObjectStore:
    """A place in a bucket that keeps versions."""
    s3fs.S3FileSystem().call_s3(
        "put_bucket_versioning", Bucket=s3.removeprefix("s3://"), VersioningConfiguration={"Status": "Enabled"}
    )
    return ObjectStore(f"{s3}/artifacts")


@pytest.mark.parametrize("step", ["list_object_versions", "delete_object"])
def test_what_cant_be_removed_with_its_versions_isnt_hidden_either(
    versioned: ObjectStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    for content in (b"first", b"second"):
        versioned.write("model", content)
    real, refused = s3fs.S3FileSystem.call_s3, 0

    def call(self: s3fs.S3FileSystem, method: str, **arguments: object) -> object:
        nonlocal refused
        if method == step:
            refused += 1
            if step == "list_object_versions" or refused == 2:  # after the first version was removed
                raise PermissionError("Access Denied")
        return real(self, method, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "call_s3", call)
        with pytest.raises(StoreError, match="Check credentials and rights"):
            versioned.remove("model")
    assert refused
    assert versioned.read("model") == b"second"
    versioned.remove("model")
    assert versioned.entries(hidden=True) == versioned.entries() == {}


def test_what_others_have_hidden_is_listed_and_removed_when_asked(versioned: ObjectStore) -> None:
    for name in ("kept", "hidden", "deeper/hidden"):
        versioned.write(name, b"x")
        versioned.write(name, b"xyz")
    for name in ("hidden", "deeper/hidden"):
        s3fs.S3FileSystem().rm_file(f"{versioned.url.removeprefix('s3://')}/{name}")
    assert versioned.entries().keys() == {"kept"}
    assert {name: entry.bytes for name, entry in versioned.entries(hidden=True).items()} == {
        "kept": 4,
        "hidden": 4,
        "deeper/hidden": 4,
    }
    versioned.remove_hidden()
    assert {name: entry.bytes for name, entry in versioned.entries(hidden=True).items()} == {"kept": 4}
    assert versioned.read("kept") == b"xyz"


def test_a_listing_of_versions_in_pages_is_read_to_its_end(
    versioned: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = s3fs.S3FileSystem.call_s3

    def in_pages(self: s3fs.S3FileSystem, method: str, **arguments: object) -> object:
        return real(self, method, **arguments, **({"MaxKeys": 2} if method == "list_object_versions" else {}))

    names = [f"{number}" for number in range(5)]
    for name in names:
        versioned.write(name, b"x")
    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", in_pages)
    assert sorted(versioned.entries(hidden=True)) == names
    versioned.remove(*names[1:])
    assert versioned.entries(hidden=True).keys() == {"0"}


def test_a_store_of_s3s_kind_that_knows_no_versions_removes_nevertheless(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real = ObjectStore(f"{s3}/artifacts"), s3fs.S3FileSystem.call_s3
    for name in ("a", "b", "c"):
        store.write(name, b"x")

    def call(self: s3fs.S3FileSystem, method: str, **arguments: object) -> object:
        if method == "list_object_versions":
            raise translate_boto_error(refused("NotImplemented", 501)) from refused("NotImplemented", 501)
        return real(self, method, **arguments)

    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", call)
    store.remove("a", "b", "nothing")
    store.remove_hidden()
    assert store.entries(hidden=True).keys() == {"c"}


def test_several_are_removed_and_no_others(store: ObjectStore) -> None:
    for name in ("a", "b", "deeper/a", "a-2"):
        store.write(name, b"x")
    store.remove()
    store.remove("a", "deeper/a", "nothing")
    assert store.entries().keys() == {"b", "a-2"}


@pytest.mark.parametrize("name", ["../beside", "a/../../beside", "a//b", "/tmp/a", "./a"])
def test_an_object_whose_name_leads_elsewhere_is_refused_when_all_are_listed(store: ObjectStore, name: str) -> None:
    store.write("sound", b"x")
    assert store.names() == {"sound"}
    put(store, name)
    with pytest.raises(StoreError, match="no file can be named like"):
        store.entries()


def test_an_object_that_stands_for_a_directory_is_none(s3: str) -> None:
    """Consoles make such, to show an empty one."""
    store = ObjectStore(f"{s3}/artifacts")
    for name in ("", "deeper/"):
        put(store, name)
    assert store.entries() == store.entries(hidden=True) == {}


def put(store: ObjectStore, name: str) -> None:
    """Write an object of just this name."""
    if store.url.startswith("s3://"):
        bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=b"x")
    else:
        fsspec.filesystem("memory").pipe_file(f"{store.url}/{name}", b"x")


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, response: dict[str, object]) -> None:
        super().__init__(response)
        self.response = response


def refused(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}})


@pytest.mark.parametrize(
    ("code", "status", "passing"),
    [
        ("SlowDown", 503, True),
        ("InternalError", 500, True),
        ("NotImplemented", 501, False),
        ("HTTPVersionNotSupported", 505, False),
        ("AccessDenied", 403, False),
    ],
)
def test_what_a_server_doesnt_know_isnt_waited_for(code: str, status: int, passing: bool) -> None:
    error = translate_boto_error(refused(code, status))
    error.__cause__ = refused(code, status)
    assert is_passing(error) == passing


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
    s3fs.S3FileSystem().call_s3("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
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
        assert store.entries(hidden=True).keys() == {"b"}
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
    assert time.monotonic() - started < 60


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
    assert time.monotonic() - started < 60


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
    assert time.monotonic() - started < 60


def test_a_directory_that_isnt_there_isnt_missing_in_the_store(store: ObjectStore, tmp_path: Path) -> None:
    store.write("a", b"x")
    with pytest.raises(ArtifactError, match="a can't be written: No such file") as error:
        store.download("a", tmp_path / "nowhere" / "a")
    assert not isinstance(error.value, StoreError)


def test_a_right_that_is_missing_on_the_disk_is_no_refusal_of_the_stores(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it goes after the first look, which a client then tells like a right that is missing in the store."""
    store.write("a", b"x")
    real = Path.touch

    def touched_and_gone(path: Path) -> None:
        real(path)
        path.unlink()
        path.symlink_to(tmp_path / "nowhere" / "a")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", touched_and_gone)
        with pytest.raises(ArtifactError, match="a can't be written") as download:
            store.download("a", tmp_path / "a")
    assert not isinstance(download.value, StoreError)


def test_a_file_that_cant_be_read_is_no_refusal_of_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")

    def refuse(self: object, path: str, _: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    with pytest.raises(PermissionError):
        ObjectStore(f"memory://{uuid4().hex}").upload(tmp_path / "file", "b")
