"""The laws of docs/scale.md: bytes against what real builds and sketches take, noise against drawn directions.

How long anything takes isn't tested: those are constants of a machine, which the document says when it was measured.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app import catalog
from app.tables import Dataset
from engine.configuration import SketchConfiguration
from engine.copies import Address
from engine.directions import directions, overlaps
from engine.documents import Documents
from engine.estimate import prepare
from engine.frame import on_host
from engine.holdings import Part
from engine.measure import Measurement, targets
from engine.model import ModelConfiguration
from engine.native.library import library
from engine.resident import ResidentSketch
from engine.shard import Shard
from engine.sketch import build
from engine.sphere import term_samples
from engine.store import PARAMETERS, Artifact, read_tensors
from tests.benchmarks import scale, scale_laws
from tests.benchmarks.scale_constants import KEPT
from tests.benchmarks.scale_laws import Size

NAMES = ["abe", "cab", "dad", "bead", "ace", "fade", "deaf", "fab", "cafe", "babe", "face", "bed"]
KINDS = {
    "directions": {"axes": False, "directions": 20},
    "axes": {"axes": True, "directions": 0},
    "both": {"axes": True, "directions": 20},
}
DOCUMENT = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=KINDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Size, Artifact]:
    """A small build of every kind."""
    documents = Documents.from_records((name, None) for name in NAMES)
    model = ModelConfiguration(vocabulary=documents.vocabulary, width=8, heads=2, context=8)
    options: dict[str, Any] = KINDS[request.param]
    configuration = SketchConfiguration(model=model, anchors=32, ensemble="sphere", block=7, **options)
    artifact = build(documents, configuration, tmp_path_factory.mktemp("scale") / "sketch")
    return size_of(configuration, documents), artifact


def size_of(configuration: SketchConfiguration, documents: Documents) -> Size:
    return Size(
        name="small",
        configuration=configuration,
        documents=len(documents),
        units=documents.unit_count,
        tokens=4.5,
        text_tokens=4,  # of "abe", and its end
        deleted=2,
        requests_a_second=1,
    )


def lanes(configuration: SketchConfiguration) -> int:
    code = library(configuration.torch_dtype, configuration.degree, 2)
    return 1 if code is None else code.lanes


def test_an_artifact_has_the_bytes_of_its_law_but_for_lists_of_units(built: tuple[Size, Artifact]) -> None:
    size, artifact = built
    of_numbers = 0
    for name in artifact.manifest.files:
        tensors = read_tensors(artifact.path / name)
        of_numbers += sum(tensor.nbytes for key, tensor in tensors.items() if key not in {"members", "sizes"})
    assert of_numbers == size.configuration.size_bytes(size.units)


def test_blocks_are_the_files_beside_the_parameters(built: tuple[Size, Artifact]) -> None:
    size, artifact = built
    assert scale_laws.blocks(size) == len(artifact.manifest.files.keys() - {PARAMETERS})


def test_a_file_takes_about_its_notice_in_the_manifest(built: tuple[Size, Artifact]) -> None:
    _, artifact = built
    content = json.loads((artifact.path / "manifest.json").read_text(encoding="utf-8"))
    without = {**content, "files": {}}
    more = len(json.dumps(content, indent=2)) - len(json.dumps(without, indent=2))
    assert more / len(content["files"]) == pytest.approx(scale_laws.NOTICE_BYTES, rel=0.1)


def test_a_resident_sketch_occupies_what_the_laws_say(built: tuple[Size, Artifact]) -> None:
    size, artifact = built
    frame = ResidentSketch.open(artifact.path).frame
    assert frame.holdings is not None
    held = scale_laws.held_bytes(size, lanes=lanes(size.configuration))
    assert frame.holdings.nbytes == held
    assert frame.size_bytes == held + scale_laws.front_bytes(size)
    assert frame.directions.nbytes + frame.directions_by_unit.nbytes == scale_laws.psi_bytes(size)
    if frame.axes is not None:
        assert frame.axes.kinship.nbytes == scale_laws.kinship_bytes(size)


@pytest.mark.parametrize("kind", ["loss", "next_token"])
def test_a_table_occupies_what_its_law_says(built: tuple[Size, Artifact], kind: str) -> None:
    size, artifact = built
    measurement = Measurement(text="abe") if kind == "loss" else Measurement(kind="next_token", prompt="ab")
    tokens = len(targets(measurement, size.model).tokens)
    [prepared] = prepare([measurement], ResidentSketch.open(artifact.path).frame)
    law = scale_laws.table_bytes(replace(size, text_tokens=tokens), outcomes=1 if kind == "loss" else tokens)
    assert prepared.table.size_bytes == law


def test_shards_send_the_numbers_of_the_law(built: tuple[Size, Artifact]) -> None:
    size, artifact = built
    text = targets(Measurement(text="abe"), size.model)
    sent = 0
    for number in range(3):
        shard = Shard(Part(number, 3), device="cpu", resident_bytes=2**30)
        shard.load(Address(path=artifact.path, checksum=artifact.checksum))
        along, on_axes, models = shard.measure(artifact.checksum, [text])
        sent += sum(higher.nbytes for kind in (along, on_axes) if kind is not None for _, higher in kind)
        sent += sum(constant.nbytes for constant, _ in models or ())
    assert sent == scale_laws.measurement_network_bytes(size)


@pytest.mark.parametrize("built", ["directions", "both"], indirect=True)
def test_the_jets_of_training_are_three_times_those_of_the_file(built: tuple[Size, Artifact]) -> None:
    size, artifact = built
    tensors = read_tensors(artifact.path / "directions-00000.safetensors")
    a_direction = sum(tensor[0].nbytes for tensor in tensors.values())
    assert scale_laws.state_bytes(size) == 3 * a_direction


@pytest.mark.parametrize("degree", range(1, 9))
@pytest.mark.parametrize("planes", [1, 2])
def test_products_count_the_multiplications_of_a_ring_product(degree: int, planes: int) -> None:
    counted = 0
    for left, right in itertools.product(range(degree + 1), repeat=2):
        if 0 < left + right <= degree:  # a constant is real; the product of both is shared
            counted += (planes if left else 1) * (planes if right else 1)
    assert scale_laws.products(degree, planes) == counted


def test_the_default_model_has_3504_parameters_in_matrices() -> None:
    model = ModelConfiguration(vocabulary="abcdefghijklmnopqrstuvwxyz")
    assert scale_laws.multiplied(model) == 3_504
    assert model.parameter_count == 4_192


def test_work_adds_up_over_directions_axes_and_models() -> None:
    [today, *_] = scale.sizes()
    runs = scale_laws.run_equivalents(today)
    assert runs == {"axes": 1_000 * 9 / 2, "retrained": 2_000, "directions": 500 * 24}
    assert scale_laws.build_flops(today) == scale_laws.run_flops(today) * (1 + 18_500)


@given(documents=st.integers(0, 10**9), units=st.integers(0, 10**9))
def test_membership_is_reckoned_as_the_catalog_does(documents: int, units: int) -> None:
    [today, *_] = scale.sizes()
    dataset = Dataset(document_count=documents, unit_count=units)
    size = replace(today, documents=documents, units=units)
    assert scale_laws.membership_bytes(size) == catalog.held_bytes(dataset)


@pytest.mark.parametrize("order", [1, 2])
def test_the_standard_error_of_random_directions_follows_its_law(order: int) -> None:
    units, deleted, count = 120, 6, 20_000
    generator = np.random.default_rng(order)
    derivative = generator.standard_normal((units,) * order)
    derivative = (derivative + derivative.T) / 2 if order == 2 else derivative
    spread = samples(derivative, units, deleted, count)[order - 1].std()
    norm = float(np.linalg.norm(derivative))
    law = scale_laws.standard_error(norm, order, deleted=deleted, directions=count)
    # What the law leaves out is of the order of |D| / m; a standard deviation of heavy-tailed samples isn't exact.
    assert spread / math.sqrt(count) == pytest.approx(law, rel=0.12)


@pytest.mark.parametrize("order", [1, 2])
def test_the_relative_error_of_a_one_sided_set_follows_its_law(order: int) -> None:
    units, deleted, count = 120, 12, 20_000
    derivative = np.full((units,) * order, 0.3)
    found = samples(derivative, units, deleted, count)[order - 1]
    effect = 0.3 * deleted**order
    law = scale_laws.relative_error_of_coherent_sets(deleted / units, order, count)
    assert found.mean() == pytest.approx(effect, abs=5 * found.std() / math.sqrt(count))
    assert found.std() / math.sqrt(count) / effect == pytest.approx(law, rel=0.25)


def samples(derivative: np.ndarray, units: int, deleted: int, count: int) -> np.ndarray:
    """Z of orders 1 … r, where only the last has a derivative."""
    rows = directions("sphere", 3, units, 0, count)
    psi = rows.numpy()
    measured = psi @ derivative if derivative.ndim == 1 else np.sum(psi @ derivative * psi, axis=1)
    coefficients = np.zeros((derivative.ndim, count), dtype=np.complex128)
    coefficients[-1] = measured
    return term_samples(coefficients, on_host(overlaps(rows, torch.arange(deleted))), units)


@given(units=st.integers(1, 10**9), share=st.floats(1e-9, 1), order=st.integers(1, 4), error=st.floats(1e-3, 10.0))
def test_the_directions_that_an_error_needs_have_that_error(units: int, share: float, order: int, error: float) -> None:
    count = scale_laws.directions_for_coherent_sets(share, order, error)
    assert share ** (-order / 2) / math.sqrt(2 * count) == pytest.approx(error)
    count = scale_laws.directions_for_random_sets(units, error)
    assert math.sqrt(units / (2 * count)) == pytest.approx(error)


def test_the_tables_of_the_document_are_what_the_command_prints() -> None:
    for table in scale.tables(KEPT):
        assert table in DOCUMENT
