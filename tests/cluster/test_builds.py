"""Builds and retrains on Ray nodes of this machine: the bits of one machine, whatever is lost meanwhile."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from sqlalchemy import select
from torch import Tensor
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app as command_line
from app.catalog import ByDocuments
from app.db import migrate, open_database, transaction
from app.settings import Settings
from app.tables import SketchVersion
from engine import supplements
from engine.cluster import Cluster, connected
from engine.configuration import SketchConfiguration
from engine.connection import load_ray
from engine.copies import fetch
from engine.data import census_names
from engine.documents import Documents
from engine.errors import ArtifactError, ConfigurationError, WorkerError
from engine.evaluate import evaluate, random_sets
from engine.measure import Measurement
from engine.model import ModelConfiguration
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build, direction_steps
from engine.store import Artifact, File, open_artifact
from engine.tasks import lanes
from engine.threads import cores
from engine.workspace import BlockFiles
from tests.cluster.commands import BLOCKS, LONG, but_silence, engine
from tests.cluster.nodes import HANG_SECONDS, ROOT, Counted, Nodes, processes, wait_until
from tests.stores import Proxy, bucket_behind

pytestmark = pytest.mark.cluster

TIMES = pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.drill)])
SEED = 7
BLOCK_SECONDS = 0.1
"""About what a block of the builds takes that lose nodes."""


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration
) -> Artifact:
    """What one machine builds."""
    return build(documents, configuration, tmp_path_factory.mktemp("alone") / "a")


@pytest.fixture(scope="module")
def connection(nodes: Nodes) -> Iterator[Cluster]:
    """Whatever nodes there are; a node's process serves one connection, and takes seconds to start."""
    with connected(nodes.address) as ray:
        yield Cluster(ray)


@pytest.fixture
def cluster(nodes: Nodes, connection: Cluster) -> Cluster:
    """Two nodes."""
    nodes.keep(2)
    return connection


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_nodes_builds_the_same_bits(
    count: int,
    nodes: Nodes,
    connection: Cluster,
    alone: Artifact,
    tmp_path: Path,
    documents: Documents,
    configuration: SketchConfiguration,
) -> None:
    nodes.keep(count)
    place, seen = Counted(connection, tmp_path / "log"), list[tuple[int, int]]()
    built = build(documents, configuration, tmp_path / "a", place=place, progress=lambda *work: seen.append(work))
    kinds = {name.partition("-")[0] for name in built.manifest.files}
    assert kinds == {"axes", "retrained", "directions", "parameters.safetensors"}
    assert built.manifest.files == alone.manifest.files
    assert built.manifest.plan == alone.manifest.plan
    assert open_artifact(built.path) == built
    assert {path.name for path in built.path.iterdir()} == {path.name for path in alone.path.iterdir()}
    assert set(place.count("begun").values()) == {1}
    assert place.count("begun").keys() == built.manifest.files.keys() - {"parameters.safetensors"}
    done = [work for work, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (seen[0][1], seen[0][1])


def test_torch_builds_the_same_bits_too(
    cluster: Cluster, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    few = documents.first(12)
    small = dataclasses.replace(configuration, anchors=32, directions=8, block=40)
    one = build(few, small, tmp_path / "one", native=False)
    spread = build(few, small, tmp_path / "spread", native=False, place=cluster)
    assert spread.manifest.files == one.manifest.files
    assert not spread.manifest.plan.execution.native


@TIMES
def test_nodes_that_are_killed_cost_their_blocks_only(
    times: int,
    nodes: Nodes,
    connection: Cluster,
    tmp_path: Path,
    documents: Documents,
    configuration: SketchConfiguration,
) -> None:
    training = dataclasses.replace(configuration.training, epochs=12)
    longer = dataclasses.replace(configuration, pairs=False, directions=192, training=training, block=16)
    expected = build(documents, longer, tmp_path / "expected", workers=2).manifest.files
    moments, total = random.Random(SEED), direction_steps(longer, documents)
    for number in range(times):
        nodes.keep(2)
        place, done = Counted(connection, tmp_path / f"log-{number}"), list[int]()
        moment = moments.randrange(len(expected) - 3)  # of all blocks, so that there is another one for each node
        is_certain = number % 2 == 0  # that a block is lost; else the kill may come as one is saved
        place.hold(moment if is_certain else len(expected))

        def kill(place: Counted = place, moment: int = moment, is_certain: bool = is_certain) -> None:
            try:
                wait_until(lambda: place.count("saved").total() >= moment, f"{moment} blocks are finished")
                wait_until(
                    lambda: not is_certain or place.count("begun").total() == place.count("saved").total() + 2,
                    "each node is at a block",
                )
                time.sleep(moments.random() * BLOCK_SECONDS)
                nodes.kill(moments.randrange(2))
            finally:
                place.release()

        killer = threading.Thread(target=kill)
        killer.start()
        built = build(
            documents,
            longer,
            tmp_path / f"{number}",
            place=place,
            progress=lambda now, _, done=done: done.append(now),  # type: ignore[misc]
        )
        killer.join()
        assert built.manifest.files == expected
        begun, saved = place.count("begun"), place.count("saved")
        assert begun.keys() == expected.keys() - {"parameters.safetensors"}
        assert len(saved) >= len(begun) - (not is_certain)  # one may be saved, and its node killed before it is noted
        lost = begun.total() - len(begun)
        assert lost == 1 if is_certain else lost <= 1, begun  # a node works on one block at a time
        assert max(done) == done[-1] == total


def test_a_build_that_is_interrupted_leaves_no_work_and_is_gone_on_with(
    mark: str, nodes: Nodes, tmp_path: Path, documents: Documents
) -> None:
    nodes.keep(2)
    arguments = ["build", "names.txt", "a", *BLOCKS, *LONG, "--cluster", nodes.address]
    (tmp_path / "names.txt").write_text("\n".join(documents.texts))
    partial = tmp_path / "a.partial"
    with engine(*arguments, cwd=tmp_path) as process:
        wait_until(lambda: len(list(partial.glob("directions-*.safetensors"))) >= 3, "some blocks are finished")
        os.killpg(process.pid, signal.SIGINT)
        said, complained = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130, said + complained
    assert "Traceback" not in said + complained
    wait_until(lambda: not working(mark), "the nodes stop to work")
    names = {path.name.partition(".")[0] + path.suffix: path for path in partial.glob("*.safetensors")}
    finished = {name: path.stat().st_mtime_ns for name, path in names.items()}
    assert 3 < len(finished) < 49
    with engine(*arguments, cwd=tmp_path) as process:
        said, complained = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, but_silence(complained)) == (0, ""), said + complained
    assert "On a cluster of 3 nodes: 2 processors." in said
    built = open_artifact(tmp_path / "a")
    assert finished.items() <= {path.name: path.stat().st_mtime_ns for path in built.path.iterdir()}.items()
    alone = build(documents, built.manifest.configuration, tmp_path / "alone", workers=2)
    assert alone.manifest.files == built.manifest.files


def test_tasks_that_end_after_nobody_needs_them_say_nothing(
    mark: str,
    cluster: Cluster,
    documents: Documents,
    configuration: SketchConfiguration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.cluster._GRACE_SECONDS", 0.0)  # as where a task takes longer to find out
    said = list[Exception]()
    monkeypatch.setattr("ray._private.worker._unhandled_error_handler", said.append)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    long = dataclasses.replace(configuration, training=dataclasses.replace(configuration.training, epochs=5_000))
    with pytest.raises(KeyboardInterrupt) as caught:
        cluster.retrain(documents, long, [(1,), (2,)], progress=interrupt)
    wait_until(lambda: not working(mark), "the nodes stop to work")
    del caught  # which had what Ray refers to the results with
    gc.collect()
    cluster.once("cpu", time.sleep, 0)  # Ray has told by now
    assert not said


def test_retrains_that_are_spread_are_those_of_one_machine_to_the_bit(
    cluster: Cluster, alone: Artifact, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    sets = [*((unit,) for unit in range(50)), (1, 2, 3)]
    steps: list[tuple[int, int]] = []
    spread = cluster.retrain(documents, configuration, sets, progress=lambda *work: steps.append(work))
    for name, matrix in retrain(documents, configuration, sets).items():
        assert torch.equal(spread[name], matrix)
    assert steps[-1] == (51 * 60, 51 * 60)
    sketch = ResidentSketch(alone)
    chosen = random_sets(documents, sizes=(1, 5), count=20, seed=1)
    measurements = [Measurement(text="ana"), Measurement(text="max")]
    assert evaluate(sketch, documents, chosen, measurements, retrain=cluster.retrain) == evaluate(
        sketch, documents, chosen, measurements
    )
    shutil.copytree(alone.path, tmp_path / "a")
    copy = dataclasses.replace(alone, path=tmp_path / "a")
    subsets = [[0, 1], [2, 3, 4]]
    supplements.add(copy, documents, subsets, retrain=cluster.retrain)
    supplements.add(alone, documents, subsets)
    pinned, expected = supplements.read(copy), supplements.read(alone)
    assert pinned.sets == expected.sets == [(0, 1), (2, 3, 4)]
    assert torch.equal(pinned.models, expected.models)


def test_what_training_refuses_ends_the_build_with_that_error(
    cluster: Cluster, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    diverging = dataclasses.replace(configuration.training, learning_rate=1e200)
    with pytest.raises(ConfigurationError, match=r"^Training diverged: .* Lower learning_rate or raise epsilon\.$"):
        build(documents, dataclasses.replace(configuration, training=diverging), tmp_path / "a", place=cluster)
    assert not (tmp_path / "a").exists()


@dataclasses.dataclass(frozen=True)
class FullFiles:
    """Files on a disk that is full when it comes to one of them."""

    files: BlockFiles
    missing: str

    def find(self, name: str) -> File | None:
        """As the files."""
        return self.files.find(name)

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """As the files, but for one, when there is another."""
        if name == self.missing:
            wait_until(lambda: self.files.find("axes-00000.safetensors") is not None, "another one is there")
            raise ArtifactError(f"{name} can't be written: No space left on device.")
        return self.files.save(name, tensors)


class OnFullDisk(Counted):
    """A cluster where a block can't be written."""

    def train_blocks(self, job, blocks, *, report):  # type: ignore[no-untyped-def]
        """As the cluster."""
        full = dataclasses.replace(job, files=FullFiles(job.files, "directions-00000.safetensors"))
        return super().train_blocks(full, blocks, report=report)


def test_what_a_block_refuses_ends_the_build_and_the_next_one_goes_on(
    cluster: Cluster, alone: Artifact, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    with pytest.raises(ArtifactError, match=r"^directions-00000\.safetensors can't be written: No space left"):
        build(documents, configuration, tmp_path / "a", place=OnFullDisk(cluster, tmp_path / "log"))
    place = Counted(cluster, tmp_path / "again")
    assert build(documents, configuration, tmp_path / "a", place=place).manifest.files == alone.manifest.files
    assert "directions-00000.safetensors" in place.count("begun")
    assert place.count("begun").total() < len(alone.manifest.files) - 1


def test_a_directory_that_the_nodes_do_not_share_is_refused(
    cluster: Cluster, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    def unshare(done: int, total: int) -> None:
        if (tmp_path / "a.partial").exists():  # the first time
            (tmp_path / "a.partial").rename(tmp_path / "elsewhere")

    with pytest.raises(ConfigurationError, match=r"doesn't see the directory .* share, at the same path, or a URL"):
        build(documents, configuration, tmp_path / "a", place=cluster, progress=unshare)


def test_work_that_kills_its_process_again_and_again_ends_with_an_error(cluster: Cluster) -> None:
    with pytest.raises(WorkerError, match=r"lost with its node or its process.* Start again, it goes on\.$"):
        cluster.once("cpu", _crash)


def test_a_node_with_another_version_is_refused(nodes: Nodes, tmp_path: Path, documents: Documents) -> None:
    other = tmp_path / "packages" / "neverseen-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: neverseen\nVersion: 9.9\n")
    (tmp_path / "names.txt").write_text("\n".join(documents.texts))
    nodes.keep(0)
    nodes.add(environment={"PYTHONPATH": f"{other.parent}{os.pathsep}{ROOT}"})
    with engine("build", "names.txt", "a", "--cluster", nodes.address, cwd=tmp_path) as process:
        _, complained = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 2
    assert "The node 127.0.0.1 has neverseen 9.9, and the machine that started this has" in complained
    assert "install the same version on all machines" in complained


def test_a_node_without_native_code_is_refused_where_others_have_it(
    nodes: Nodes,
    connection: Cluster,
    alone: Artifact,
    tmp_path: Path,
    documents: Documents,
    configuration: SketchConfiguration,
) -> None:
    nodes.keep(0)
    nodes.add(environment={"PATH": str(tmp_path)})
    assert connection.once("cpu", lanes, configuration, "cpu") is None
    place = Planned(connection, tmp_path / "log", alone)
    with pytest.raises(ConfigurationError, match=r"^The node 127.0.0.1 has no C\+\+ compiler that works, .*\(g\+\+"):
        build(documents, configuration, tmp_path / "a", place=place)


def test_a_node_of_another_kind_is_refused_and_both_kinds_are_named(
    nodes: Nodes,
    connection: Cluster,
    alone: Artifact,
    tmp_path: Path,
    documents: Documents,
    configuration: SketchConfiguration,
) -> None:
    nodes.keep(0)
    nodes.add(environment={"ATEN_CPU_CAPABILITY": "default"})  # where torch works as on an old processor
    place = Planned(connection, tmp_path / "log", alone)
    with pytest.raises(
        ConfigurationError, match=r"^The node 127.0.0.1 would train .*DEFAULT.*last bits.*one kind"
    ) as at:
        build(documents, configuration, tmp_path / "a", place=place)
    assert alone.manifest.plan.execution.processor in str(at.value)


def test_a_node_that_can_not_fuse_is_refused_where_others_do(
    nodes: Nodes,
    connection: Cluster,
    alone: Artifact,
    tmp_path: Path,
    documents: Documents,
    configuration: SketchConfiguration,
) -> None:
    nodes.keep(0)
    nodes.add(environment={"PATH": str(tmp_path)})  # torch compiles by the same compiler
    there = dataclasses.replace(alone.manifest.plan.execution, native=False, fused=True, processor="")
    planned = dataclasses.replace(alone.manifest.plan, execution=there)
    fused = dataclasses.replace(alone, manifest=dataclasses.replace(alone.manifest, plan=planned))
    with pytest.raises(ConfigurationError, match=r"would train by torch on cpu .* was begun by compiled torch"):
        build(documents, configuration, tmp_path / "a", place=Planned(connection, tmp_path / "log", fused))


def test_a_device_of_this_machine_has_no_number_on_a_node(nodes: Nodes, connection: Cluster) -> None:
    nodes.keep(0)
    nodes.add(gpus=1)
    assert (connection.named("cuda:1"), connection.named("cpu"), connection.workers("cuda:1")) == ("cuda", "cpu", 1)
    seen = Seen(connection)
    with pytest.raises(ConfigurationError, match="The device 'cuda' isn't available here"):
        build(census_names().first(3), tiny(), Path("never"), device="cuda:1", place=seen)
    assert seen.devices == {"cuda"}


class Seen(Counted):
    """A cluster that notes the devices that its nodes are told."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.devices: set[object] = set()

    def once(self, device, function, /, *arguments):  # type: ignore[no-untyped-def]
        """As the cluster."""
        self.devices |= {one for one in arguments if isinstance(one, str)}
        return super().once(device, function, *arguments)


def tiny() -> SketchConfiguration:
    """What is built fast."""
    model = ModelConfiguration(vocabulary=census_names().first(3).vocabulary, width=4, heads=1)
    return SketchConfiguration(model=model, directions=4)


def test_a_machine_without_a_node_of_the_cluster_says_how_to_start_one(
    nodes: Nodes, tmp_path: Path, documents: Documents
) -> None:
    (tmp_path / "names.txt").write_text("ana\nbob\ncleo")
    nodes.keep(0)
    sockets = nodes.sockets
    hidden = sockets.with_name("hidden")
    sockets.rename(hidden)
    try:
        with engine("build", "names.txt", "a", "--cluster", nodes.address, cwd=tmp_path) as process:
            _, complained = process.communicate(timeout=HANG_SECONDS)
    finally:
        hidden.rename(sockets)
    assert process.returncode == 2
    assert complained.startswith(f"Error: This machine has no node of the cluster at {nodes.address}: run `ray start ")
    assert "--num-cpus 0" in complained


def test_a_cluster_without_room_is_told_once(
    cluster: Cluster,
    tmp_path: Path,
    documents: Documents,
    configuration: SketchConfiguration,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("engine.cluster._SILENT_SECONDS", 1.0)
    ray = load_ray()
    others = [ray.remote(num_cpus=1)(_Others).remote() for _ in range(2)]
    ray.get([other.ping.remote() for other in others])

    def leave() -> None:
        try:
            wait_until(lambda: "Nothing has started" in caplog.text, "it is told")
            time.sleep(2)  # in which it might be told again
        finally:
            for other in others:
                ray.kill(other)

    leaving, place = threading.Thread(target=leave), Cluster(ray)  # one that has told nothing yet
    leaving.start()
    build(documents.first(12), dataclasses.replace(configuration, directions=8), tmp_path / "a", place=place)
    leaving.join()
    [told] = [record.getMessage() for record in caplog.records if "Nothing has started" in record.getMessage()]
    assert told.startswith("Nothing has started for 1 s: the cluster has 2 CPUs, and other work may have them all")


def test_work_that_takes_long_is_not_taken_for_a_full_cluster(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("engine.cluster._SILENT_SECONDS", math.inf)
    place, finished = Cluster(load_ray()), tmp_path / "finished"

    def finish() -> None:
        try:
            wait_until(lambda: place._tally is not None and bool(place._tally.heard_of), "it is heard of")  # noqa: SLF001
            monkeypatch.setattr("engine.cluster._SILENT_SECONDS", 0.0)
            time.sleep(2)  # in which it is looked at four times
        finally:
            finished.touch()

    finishing = threading.Thread(target=finish)
    finishing.start()
    place.once("cpu", _wait_for, finished)
    finishing.join()
    assert "Nothing has started" not in caplog.text


def _wait_for(path: Path) -> None:
    wait_until(path.exists, "the end")


class _Others:
    """Takes a processor."""

    def ping(self) -> None:
        """Be there."""


class Planned(Counted):
    """A cluster where a node with a compiler said how to work, and is gone."""

    def __init__(self, cluster: Cluster, log: Path, planned: Artifact) -> None:
        super().__init__(cluster, log)
        self._planned = planned

    def once(self, device, function, /, *arguments):  # type: ignore[no-untyped-def]
        """As the cluster, but for the first time."""
        if function.__name__ == "_execution":
            return self._planned.manifest.plan.execution
        return super().once(device, function, *arguments)


def test_a_gpu_that_no_node_has_is_refused_and_one_that_a_node_claims_is_used(
    nodes: Nodes, connection: Cluster, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    nodes.keep(1)
    with pytest.raises(ConfigurationError, match=r"^No node of the cluster has a GPU; start one that has\.$"):
        build(documents, configuration, tmp_path / "a", device="cuda", place=connection)
    nodes.add(gpus=1)
    assert connection.workers("cuda") == 1
    with pytest.raises(ConfigurationError, match="The device 'cuda' isn't available here"):  # torch says so there
        build(documents, configuration, tmp_path / "a", device="cuda", place=connection)


def test_an_address_where_no_cluster_is_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ana\nbob\ncleo")
    for address, variables, expected in (
        ("127.0.0.1:1", {}, "No Ray cluster answers at 127.0.0.1:1. Start one: `ray start --head`"),
        ("auto", {"RAY_ADDRESS": "127.0.0.1:1"}, "No Ray cluster answers at 127.0.0.1:1."),
        ("somewhere", {}, "'somewhere' is no address of a cluster; HOST:PORT, auto or local are."),
    ):
        with engine("build", "names.txt", "a", "--cluster", address, cwd=tmp_path, **variables) as process:
            _, complained = process.communicate(timeout=HANG_SECONDS)
        assert process.returncode == 2
        assert complained.startswith(f"Error: {expected}")


def test_a_store_that_is_away_for_a_while_gets_the_whole_artifact(
    s3_port: int, tmp_path: Path, documents: Documents
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(documents.texts))
    proxy = Proxy(s3_port)
    with bucket_behind(s3_port) as url, closing(proxy):
        through = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        with engine(
            "build", "names.txt", f"{url}/a", *BLOCKS, "--cluster", "local", cwd=tmp_path, **through
        ) as process:
            wait_until(lambda: blocks(url) >= 3, "some blocks are in the store")
            proxy.cut()
            seen = blocks(url)
            time.sleep(4)
            assert process.poll() is None
            assert blocks(url) <= seen + cores()  # what was on its way
            proxy.restore()
            said, complained = process.communicate(timeout=HANG_SECONDS)
        assert process.returncode == 0, said + complained
        fetched = fetch(f"{url}/a", tmp_path / "copy")
    alone = build(documents, fetched.manifest.configuration, tmp_path / "alone", workers=2)
    assert alone.manifest.files == fetched.manifest.files


def test_the_service_s_commands_work_on_a_cluster_as_here(
    nodes: Nodes, cluster: Cluster, tmp_path: Path, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    say, kept = {}, {}
    for where, options in (("here", []), ("there", ["--cluster", nodes.address])):
        (tmp_path / where).mkdir()
        monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(tmp_path / where))
        settings = Settings()
        migrate(settings.database_url)
        database = open_database(settings)
        with transaction(database) as session:
            dataset = catalog.add_dataset(session, name="names", documents=documents)
            for name, units in (("three", [1, 2, 3]), ("two", [4, 5])):
                catalog.add_subset(session, dataset=dataset, name=name, rule=ByDocuments(units))
        figures = tmp_path / f"{where}.json"
        tiny = ("--width", "4", "--heads", "1", "--anchors", "40", "--no-pairs", "--block", "20", "--no-pin")
        built = neverseen("sketches", "build", "s", "--dataset", "names", *tiny, *options)
        neverseen("subsets", "pin", "names", "three", "--sketch", "s", *options)
        neverseen("sketches", "evaluate", "s", "--size", "5", "--count", "4", "--output", str(figures), *options)
        with transaction(database) as session:
            first = session.scalars(select(SketchVersion)).one()
            catalog.forget_units(session, first.dataset, [0], now=datetime.now(UTC))
        rebuilt = neverseen("sketches", "rebuild", "s", *options)
        with transaction(database, writes=False) as session:
            places = [settings.artifacts_dir / catalog.get_version(session, "s", number).location for number in (1, 2)]
        database.dispose()
        artifacts = [open_artifact(place) for place in places]
        assert supplements.read(artifacts[0]).sets == [(1, 2, 3)]
        assert len(supplements.read(artifacts[1]).sets) == 2
        kept[where] = [artifact.manifest.files for artifact in artifacts], json.loads(figures.read_text())
        say[where] = built + rebuilt
    assert kept["there"] == kept["here"]
    assert "On a cluster of 3 nodes: 2 processors." in say["there"]
    assert "MiB at most, each worker" in say["there"]
    assert "cluster" not in say["here"]


def neverseen(*arguments: str) -> str:
    """What a command says, as if nothing had been broken into lines."""
    result = CliRunner().invoke(command_line, arguments, env={"COLUMNS": "160"})
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split())


def blocks(url: str) -> int:
    """How many blocks are in a bucket."""
    import s3fs

    found: Sequence[str] = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True).find(url)
    return sum(name.endswith(".safetensors") for name in found)


def working(mark: str) -> list[int]:
    """Processes of nodes that are at a task: Ray names them by it."""
    return [number for number, command in processes(mark).items() if command.startswith("ray::work_on")]


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
