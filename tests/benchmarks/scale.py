"""What building and serving take as everything grows: ``python -m tests.benchmarks.scale``.

Constants are measured on this machine, in some minutes (`tests.benchmarks.scale_constants`), then Ray's scheduler with
many nodes (`tests.benchmarks.scale_ray`). With them `tests.benchmarks.scale_laws` gives what four sizes take, from
today's to that of the Internet. What it prints is in docs/scale.md. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from engine import bench
from engine.bench import Figure
from engine.configuration import SketchConfiguration
from engine.model import ModelConfiguration
from engine.threads import use_one_thread
from tests.benchmarks import scale_laws as laws
from tests.benchmarks import scale_ray
from tests.benchmarks.scale_constants import KEPT, LANES, LETTERS, Constants, measured
from tests.benchmarks.scale_laws import Device, Size

GPU: Final = Device(name="GPU", flops_a_second=25e12, memory_bytes=80e9, network_bytes_a_second=50e9)
"""Assumed: 40% of the 67 TFLOP/s that an H100 does in float32 without tensor cores, its memory, and 400 Gb/s."""

FRONT_BYTES_A_SECOND: Final = 25e9 / 8
"""Assumed of the network of a front: 25 Gb/s."""

PROCESS_RATE: Final = 789
"""Questions a second of one process, from docs/performance.md."""

RECORD_BYTES: Final = 500
"""Of the audit, roughly."""

FRONT_BYTES: Final = 64 * 2.0**30
SHARD_BYTES: Final = 64 * 2.0**30
MEMBERSHIP_BYTES: Final = 32 * 2**20
SHARES: Final = (1e-8, 1e-4, 1e-3, 1e-2, 1e-1)
"""Of the data that is deleted, for the table of noise."""

def sizes() -> list[Size]:
    """Today's size, ten and a thousand times all of it, and what the Internet may come to."""
    default = SketchConfiguration(model=ModelConfiguration(vocabulary=LETTERS), axes=True, directions=500)
    today = Size(
        name="today",
        configuration=default,
        documents=1_000,
        units=1_000,
        tokens=7.2,
        text_tokens=9,
        deleted=50,
        requests_a_second=10,
    )

    def times(factor: int, width: int, layers: int) -> Size:
        model = dataclasses.replace(default.model, width=width, layers=layers)
        return dataclasses.replace(
            today,
            name=f"× {factor:,}",
            configuration=dataclasses.replace(default, model=model, directions=500 * factor),
            documents=1_000 * factor,
            units=1_000 * factor,
            requests_a_second=10 * factor,
        )

    tokens = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000))) + "".join(map(chr, range(0xAC00, 0xAC00 + 11_172)))
    large = ModelConfiguration(vocabulary=tokens, layers=33, width=4_096, heads=32, context=2_048)
    internet = Size(
        name="Internet",
        configuration=SketchConfiguration(model=large, axes=True, directions=100_000),
        documents=10**9,
        units=10**8,
        tokens=1_000,
        text_tokens=100,
        deleted=100,
        requests_a_second=10_000,
    )
    return [today, times(10, 56, 1), times(1_000, 264, 5), internet]


def tables(constants: Constants) -> Iterator[Table]:
    """What the sizes take, and where choices stop working."""
    of = sizes()
    yield _table("Sizes", of, _of_sizes)
    yield _table("Building", of, lambda size: _of_building(size, constants))
    yield _table("Serving", of, lambda size: _of_serving(size, constants))
    yield _table("Catalog", of, lambda size: _of_catalog(size, constants))
    yield _noise(of)
    yield _limits(of, constants)


def _of_sizes(size: Size) -> dict[str, str]:
    return {
        "parameters P": _count(size.model.parameter_count),
        "documents n": _count(size.documents),
        "tokens of a document": f"{size.tokens:g}",
        "units m": _count(size.units),
        "directions K, degree 3": _count(size.configuration.directions),
        "anchors": _count(size.configuration.anchors),
        "questions a second": _count(size.requests_a_second),
        "tokens of a measured text": _count(size.text_tokens),
    }


def _of_building(size: Size, constants: Constants) -> dict[str, str]:
    runs, run, alone = laws.run_equivalents(size), laws.run_flops(size), _without_axes(size)
    core = constants.core(size.model.parameter_count)
    drawn = laws.unitary_flops_of_a_build(size) / constants.unitary_flops_a_second
    return {
        "an ordinary run, operations": _count(run),
        "… on a core": _duration(run / core),
        "… on a GPU": _duration(run / GPU.flops_a_second),
        "directions, in runs": _count(runs["directions"]),
        "axes, in runs": _count(runs["axes"]),
        "retrained models, in runs": _count(runs["retrained"]),
        "directions, on a core": _duration(run * runs["directions"] / core),
        "directions, on a GPU": _duration(run * runs["directions"] / GPU.flops_a_second),
        "all, on a core": _duration(laws.build_flops(size) / core),
        "all, on a GPU": _duration(laws.build_flops(size) / GPU.flops_a_second),
        "least time, a group on each core": _duration(LANES * run * laws.products(3, 2) / core),
        "least time, a direction on each GPU": _duration(run * laws.products(3, 2) / GPU.flops_a_second),
        "a direction's jets in training": _bytes(laws.state_bytes(size)),
        "… its activations": _bytes(laws.activation_bytes(size)),
        "GPUs for one direction": _count(math.ceil(laws.devices_of_a_direction(size, GPU))),
        "artifact": _bytes(size.configuration.size_bytes(size.units)),
        "… of the directions": _bytes(alone.configuration.size_bytes(size.units)),
        "… sent at 50 GB/s": _duration(size.configuration.size_bytes(size.units) / GPU.network_bytes_a_second),
        "blocks": _count(laws.blocks(size)),
        "list of them, made by each task": _duration(laws.blocks(size) * constants.block_seconds),
        "manifest.json": _bytes(laws.manifest_bytes(size)),
        "schedule in each worker": _bytes(constants.schedule_bytes * size.documents),
        "rows of ψ of a block": _bytes(16 * size.configuration.block * size.units),
        "unitary directions drawn, all blocks": _duration(drawn) + " of a core",
    }


def _of_serving(size: Size, constants: Constants) -> dict[str, str]:
    alone, network = _without_axes(size), laws.measurement_network_bytes(size)
    core = constants.core(size.model.parameter_count)
    new = laws.measurement_flops(size) / core
    return {
        "held by the shards": _bytes(laws.held_bytes(size)),
        "… of the directions": _bytes(laws.held_bytes(alone)),
        "… shards of 64 GiB": _count(math.ceil(laws.held_bytes(alone) / SHARD_BYTES)),
        "ψ at the front": _bytes(laws.psi_bytes(size)),
        "kinship at the front": _bytes(laws.kinship_bytes(size)),
        "front": _bytes(laws.front_bytes(size)),
        "… as it starts": _bytes(laws.singles_bytes(size)),
        "… of the directions": _bytes(laws.front_bytes(alone)),
        "table of a text": _bytes(laws.table_bytes(size)),
        "… of the directions": _bytes(laws.table_bytes(alone)),
        "a new text, to the front": _bytes(network),
        "… at 25 Gb/s": _duration(network / FRONT_BYTES_A_SECOND),
        "… of the directions": _bytes(laws.measurement_network_bytes(alone)),
        "… as sums of a shard": _bytes(laws.sums_network_bytes(size)),
        "a new text, the directions' work": _duration(new) + " of a core",
        "cores for the new texts of all questions": _count(size.requests_a_second * size.new_share * new),
        "numbers gathered for an answer, K·|D|": _count(size.configuration.directions * size.deleted),
        "processes for known texts": _count(math.ceil(size.requests_a_second / PROCESS_RATE)),
    }


def _of_catalog(size: Size, constants: Constants) -> dict[str, str]:
    content = (constants.row_bytes + 4 * size.tokens) * size.documents
    return {
        "rows, texts of 4 B a token": _bytes(content),
        "… written": _duration(constants.row_seconds * size.documents),
        "remembered membership": _bytes(laws.membership_bytes(size)),
        "a search for a piece of text": _duration(constants.search_seconds * size.documents),
        "written anew after an erasure": _duration(constants.vacuum_seconds_a_byte * content),
        "records of the audit, a year": _bytes(RECORD_BYTES * size.requests_a_second * laws.YEAR_SECONDS),
        "share of a chain's time": f"{size.requests_a_second * constants.record_seconds:.1%}",
    }


def _noise(of: Sequence[Size]) -> Table:
    """Relative standard errors, and the directions that a tenth of the effect takes."""
    shown = Table(box=box.SIMPLE, title="Noise of random directions: standard error by effect")
    for heading in ("", *(size.name for size in of)):
        shown.add_column(heading, justify="right" if heading else "left")
    errors = [laws.relative_error_of_random_sets(size.units, size.configuration.directions) for size in of]
    shown.add_row("random set, order 1", *map(_number, errors))
    needed = [laws.directions_for_random_sets(size.units, 0.1) for size in of]
    shown.add_row("… K for 10%", *map(_count, needed))
    for share in SHARES:
        for order in (1, 2):
            errors = [
                laws.relative_error_of_coherent_sets(share, order, size.configuration.directions)
                if share * size.units >= 1
                else math.nan
                for size in of
            ]
            shown.add_row(f"one-sided set, {share:.2g} of the data, order {order}", *map(_number, errors))
    return shown


def _limits(of: Sequence[Size], constants: Constants) -> Table:
    """The largest that a choice works for, with a front and shards of 64 GiB and GPUs as assumed."""
    today, largest = of[0], of[-1]
    tokens = laws.LINKS * today.text_tokens
    cache = 256 * 2**20
    rows = {
        "ψ at the front: K·m": _count(laws.most_directions_at_the_front(1, FRONT_BYTES)),
        "kinship at the front: m": _count(laws.most_units_of_kinship(FRONT_BYTES)),
        "units' models at the front's start: m·P": _count(laws.most_units_of_singles(1, FRONT_BYTES)),
        "a text's table with axes in the cache (256 MiB): m": _count(cache / (8 * 4 * tokens)),
        "… 100 of them: m": _count(cache / (8 * 4 * tokens) / 100),
        "a text's table of directions in the cache: K": _count(cache / (16 * 3)),
        "… 1,000 of them: K": _count(cache / (16 * 3) / 1_000),
        "interpolation, 4,000 directions: its factors": _bytes(2 * 8 * 8_000**2),
        "membership remembered: m, a document each": _count(MEMBERSHIP_BYTES / 216),
        "schedule in a worker of 16 GiB: n": _count(16 * 2**30 / constants.schedule_bytes),
        "rows of ψ of a block in 16 GiB: m": _count(16 * 2**30 / (16 * today.configuration.block)),
        "list of blocks within a second of each task: blocks": _count(1 / constants.block_seconds),
        "one audit chain, records together: a second": _count(1 / constants.record_seconds),
        "a direction on one GPU of 80 GB, activations left out: P": _count(GPU.memory_bytes / (4 * (3 * 6 + 3))),
        "a GPU-year, degree 3, K = 500, n·T = 20·P tokens: P": _count(_chinchilla(500)),
        "the same, 1,000 retrained models: P": _count(_retrained(1_000)),
        "directions of a GPU-year beside the largest model": _number(
            GPU.flops_a_second * laws.YEAR_SECONDS / (laws.run_flops(largest) * laws.products(3, 2))
        ),
    }
    shown = Table(box=box.SIMPLE, title="Where a choice stops")
    shown.add_column("choice")
    shown.add_column("up to", justify="right")
    for name, value in rows.items():
        shown.add_row(name, value)
    return shown


def _chinchilla(directions: int) -> float:
    """P whose sketch takes a GPU a year, with 20 tokens a parameter: 6 P · 20 P · (directions · products) operations."""
    return math.sqrt(GPU.flops_a_second * laws.YEAR_SECONDS / (120 * directions * laws.products(3, 2)))


def _retrained(models: int) -> float:
    return math.sqrt(GPU.flops_a_second * laws.YEAR_SECONDS / (120 * models))


def _without_axes(size: Size) -> Size:
    return dataclasses.replace(size, configuration=dataclasses.replace(size.configuration, axes=False))


def _table(title: str, of: Sequence[Size], rows: Callable[[Size], dict[str, str]]) -> Table:
    shown = Table(box=box.SIMPLE, title=title)
    for heading in ("", *(size.name for size in of)):
        shown.add_column(heading, justify="right" if heading else "left")
    columns = [rows(size) for size in of]
    for name in columns[0]:
        shown.add_row(name, *(column[name] for column in columns))
    return shown


def _count(value: float) -> str:
    """Of things: with commas, or two digits and a power of ten."""
    return f"{value:,.0f}" if value < 1e6 else _power(value)


def _power(value: float) -> str:
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.2g}" if 1e-3 < value < 1e3 else _power(value)


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.5 or unit == "PB":
            break
        value /= 1_000
    return f"{value:.3g} {unit}" if value < 1e6 else f"{_power(value)} {unit}"


def _duration(seconds: float) -> str:
    for unit, length in (("years", laws.YEAR_SECONDS), ("days", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * length:
            return f"{_count(seconds / length) if seconds >= 10 * length else f'{seconds / length:.1f}'} {unit}"
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{1e3 * seconds:.2g} ms"


def main() -> None:
    """Measure, and print what follows."""
    parser = argparse.ArgumentParser(description="What building and serving take as everything grows.")
    parser.add_argument("--kept", action="store_true", help="measure nothing: the constants of docs/scale.md")
    parser.add_argument("--nodes", type=int, default=scale_ray.NODES, help="of the simulated cluster; 0: none")
    parser.add_argument("--output", type=Path, help="file of JSON lines that the figures are appended to")
    options = parser.parse_args()
    use_one_thread()
    console = Console()
    constants, figures, about = KEPT, list[Figure](), bench.conditions("cpu")
    if not options.kept:
        figures += measured()
        constants = Constants.of(figures)
        if options.nodes:
            about |= scale_ray.conditions(options.nodes)
            figures += scale_ray.simulate(options.nodes)
        console.print(bench.table(figures, about), highlight=False)
    for table in tables(constants):
        console.print(table, highlight=False)
    if options.output is not None:
        bench.append(options.output, figures, about)


if __name__ == "__main__":
    main()
