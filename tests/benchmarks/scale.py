"""What building and serving take as everything grows: ``python -m tests.benchmarks.scale``.

Constants are measured on this machine, in some minutes (`tests.benchmarks.scale_constants`), then Ray's scheduler with
many nodes (`tests.benchmarks.scale_ray`). With them `tests.benchmarks.scale_laws` gives what four sizes take, from
today's to that of the Internet. What it prints is in docs/scale.md. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

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

NORMS: Final = (2**-2.5, 2**-3.9, 2**-4.3)
"""Of the derivatives of a loss, from docs/accuracy.md: 1,000 names, 60 directions."""

DELETED: Final = (1, 18, 100)
NATS: Final = 0.01

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


def tables(constants: Constants) -> Iterator[str]:
    """What the sizes take, and where choices stop working, each as Markdown."""
    of = sizes()
    yield _table("Sizes", of, _of_sizes)
    yield _table("Building", of, lambda size: _of_building(size, constants))
    yield _table("Serving", of, lambda size: _of_serving(size, constants))
    yield _table("Catalog", of, lambda size: _of_catalog(size, constants))
    yield _noise(of)
    yield _noise_in_nats()
    yield _limits(of, constants)


def _of_sizes(size: Size) -> dict[str, str]:
    return {
        "parameters P": _count(size.model.parameter_count),
        "documents n": _count(size.documents),
        "tokens of a document": f"{size.tokens:,g}",
        "units m": _count(size.units),
        "directions K, degree 3": _count(size.configuration.directions),
        "anchors": _count(size.configuration.anchors),
        "questions a second": _count(size.requests_a_second),
        "tokens of a measured text": _count(size.text_tokens),
    }


def _of_building(size: Size, constants: Constants) -> dict[str, str]:
    runs, run, alone = laws.run_equivalents(size), laws.run_flops(size), _without_axes(size)
    core = constants.core(size.model.parameter_count)
    on_core = {kind: run * count / core / constants.relative_rates[kind] for kind, count in runs.items()}
    drawn = laws.unitary_flops_of_a_build(size) / constants.unitary_flops_a_second
    once = laws.unitary_flops(min(_k(size), size.units), size.units)
    return {
        "an ordinary run, operations": _count(run),
        "an ordinary run, on a GPU": _duration(run / GPU.flops_a_second),
        "K directions, in runs": _count(runs["directions"]),
        "m axes, in runs": _count(runs["axes"]),
        "m + 1,000 retrained models, in runs": _count(runs["retrained"]),
        "K directions, on a core": _duration(on_core["directions"]),
        "K directions, on a GPU": _duration(run * runs["directions"] / GPU.flops_a_second),
        "all of it, on a core": _duration(sum(on_core.values())),
        "all of it, on a GPU": _duration(laws.build_flops(size) / GPU.flops_a_second),
        "at least, with a core for each group": _duration(LANES * run * laws.products(3, 2) / core),
        "at least, with a GPU for each direction": _duration(run * laws.products(3, 2) / GPU.flops_a_second),
        "a direction's jets in training": _bytes(laws.state_bytes(size)),
        "a direction's activations": _bytes(laws.activation_bytes(size)),
        "GPUs whose memory it takes": _count(math.ceil(laws.devices_of_a_direction(size, GPU))),
        "artifact": _bytes(size.configuration.size_bytes(size.units)),
        "artifact of directions alone": _bytes(alone.configuration.size_bytes(size.units)),
        "artifact, sent at 50 GB/s": _duration(size.configuration.size_bytes(size.units) / GPU.network_bytes_a_second),
        "blocks": _count(laws.blocks(size)),
        "a list of them": _duration(laws.blocks(size) * constants.block_seconds),
        "manifest.json": _bytes(laws.manifest_bytes(size)),
        "schedule in each worker": _bytes(constants.schedule_bytes * size.documents),
        "ψ of a block in a worker": _bytes(16 * size.configuration.block * size.units),
        "unitary directions, drawn by all blocks, on a core": _duration(drawn),
        "unitary directions, drawn by a front as it starts": _duration(once / constants.unitary_flops_a_second),
    }


def _of_serving(size: Size, constants: Constants) -> dict[str, str]:
    alone, network = _without_axes(size), laws.measurement_network_bytes(size)
    operations, asked = laws.measurement_flops(size), size.requests_a_second * size.new_share
    new = operations / constants.core(size.model.parameter_count)
    return {
        "held by the shards": _bytes(laws.held_bytes(size)),
        "held by the shards, directions alone": _bytes(laws.held_bytes(alone)),
        "shards of 64 GiB for that": _count(math.ceil(laws.held_bytes(alone) / SHARD_BYTES)),
        "front: ψ": _bytes(laws.psi_bytes(size)),
        "front: kinship": _bytes(laws.kinship_bytes(size)),
        "front: all": _bytes(laws.front_bytes(size)),
        "front: for a moment as it starts": _bytes(laws.singles_bytes(size)),
        "front: directions alone": _bytes(laws.front_bytes(alone)),
        "a text's table": _bytes(laws.table_bytes(size)),
        "a text's table, directions alone": _bytes(laws.table_bytes(alone)),
        "a new text, shards to front": _bytes(network),
        "a new text, directions alone": _bytes(laws.measurement_network_bytes(alone)),
        "a new text, at 25 Gb/s": _duration(network / FRONT_BYTES_A_SECOND),
        "a new text, as sums of a shard": _bytes(laws.sums_network_bytes(size)),
        "a new text along the directions, on a core": _duration(new),
        "cores, if 1% of the questions are about new texts": _count(math.ceil(asked * new)),
        "GPUs, if so": _count(math.ceil(asked * operations / GPU.flops_a_second)),
        "numbers gathered for an answer, K · \\|D\\|": _count(size.configuration.directions * size.deleted),
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


def _noise(of: Sequence[Size]) -> str:
    """Standard errors by the effect, and the directions with which they are a tenth."""
    shown = {"random set, order 1": [_number(laws.relative_error_of_random_sets(s.units, _k(s))) for s in of]}
    shown["… K for 10%"] = [_count(laws.directions_for_random_sets(size.units, 0.1)) for size in of]
    for share in SHARES:
        for order in (1, 2):
            shown[f"one-sided set, {_share(share)} of the data, order {order}"] = [
                _number(laws.relative_error_of_coherent_sets(share, order, _k(size)))
                if share * size.units >= 1
                else "–"
                for size in of
            ]
    return _markdown(("Noise", *(size.name for size in of)), shown)


def _noise_in_nats() -> str:
    """The standard error of a loss on today's data, whose derivative norms were measured."""
    rows = {}
    for order, norm in enumerate(NORMS, start=1):
        found = []
        for deleted in DELETED:
            error = laws.standard_error(norm, order, deleted=deleted, directions=500)
            found += [_number(error), _count(500 * (error / NATS) ** 2)]
        rows[f"order {order}, norm {norm:.3f}"] = found
    headings = [f"{head}, {deleted} deleted" for deleted in DELETED for head in ("± nats, K = 500", f"K for ± {NATS}")]
    return _markdown(("Noise today", *headings), rows)


def _k(size: Size) -> int:
    return size.configuration.directions


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{100 * share:g}%" if share > 1e-5 else "one unit"


def _limits(of: Sequence[Size], constants: Constants) -> str:
    """The largest that a choice works for, with a front and shards of 64 GiB and GPUs as assumed."""
    today, largest = of[0], of[-1]
    of_unit, cache = 8 * 4 * laws.LINKS * today.text_tokens, 256 * 2**20
    rows = {
        "ψ at the front: K·m": _count(laws.most_directions_at_the_front(1, FRONT_BYTES)),
        "kinship at the front: m": _count(laws.most_units_of_kinship(FRONT_BYTES)),
        "units' models at the front's start: m·P": _count(laws.most_units_of_singles(1, FRONT_BYTES)),
        "a text's table with axes in the cache (256 MiB): m": _count(cache / of_unit),
        "… 100 of them: m": _count(cache / of_unit / 100),
        "a text's table of directions in the cache: K": _count(cache / (16 * 3)),
        "… 1,000 of them: K": _count(cache / (16 * 3) / 1_000),
        "interpolation, 4,000 directions: its factors": _bytes(2 * 8 * 8_000**2),
        "membership remembered: m, a document each": _count(MEMBERSHIP_BYTES / 216),
        "schedule in a worker of 16 GiB: n": _count(16 * 2**30 / constants.schedule_bytes),
        "rows of ψ of a block in 16 GiB: m": _count(16 * 2**30 / (16 * today.configuration.block)),
        "one audit chain, records together: a second": _count(1 / constants.record_seconds),
        "a direction on one GPU of 80 GB, activations left out: P": _count(GPU.memory_bytes / (4 * (3 * 6 + 3))),
        "a GPU-year, degree 3, K = 500, n·T = 20·P tokens: P": _count(_chinchilla(500)),
        "the same, 1,000 retrained models: P": _count(_retrained(1_000)),
        "directions of a GPU-year beside the largest model": _number(
            GPU.flops_a_second * laws.YEAR_SECONDS / (laws.run_flops(largest) * laws.products(3, 2))
        ),
    }
    return _markdown(("Choice", "up to"), {name: [value] for name, value in rows.items()})


def _chinchilla(directions: int) -> float:
    """P whose directions take a GPU a year, with 20 tokens a parameter: a run is 6 P · 20 P operations."""
    return math.sqrt(GPU.flops_a_second * laws.YEAR_SECONDS / (120 * directions * laws.products(3, 2)))


def _retrained(models: int) -> float:
    return math.sqrt(GPU.flops_a_second * laws.YEAR_SECONDS / (120 * models))


def _without_axes(size: Size) -> Size:
    return dataclasses.replace(size, configuration=dataclasses.replace(size.configuration, axes=False))


def _table(title: str, of: Sequence[Size], rows: Callable[[Size], dict[str, str]]) -> str:
    columns = [rows(size) for size in of]
    return _markdown(
        (title, *(size.name for size in of)), {name: [column[name] for column in columns] for name in columns[0]}
    )


def _markdown(headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [headings, ("---", *["---:"] * (len(headings) - 1)), *((name, *cells) for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _count(value: float) -> str:
    """Of things: with commas, or two digits and a power of ten."""
    return f"{value:,.0f}" if value < 1e6 else _power(value)


def _power(value: float) -> str:
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def _number(value: float) -> str:
    return f"{value:.2g}" if 1e-3 < value < 99 else _count(value) if value >= 99 else _power(value)


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB", "PB", "EB"):
        if value < 999.5 or unit == "EB":
            break
        value /= 1_000
    return f"{value:.3g} {unit}"


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
        console.print(table, "", sep="\n", highlight=False, markup=False, soft_wrap=True)
    if options.output is not None:
        bench.append(options.output, figures, about)


if __name__ == "__main__":
    main()
