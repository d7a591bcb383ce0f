"""``python -m engine build | evaluate | figures | bench``: the engine from files, with no catalog."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import log2
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engine import bench as benchmark
from engine import evaluate as evaluation
from engine import figures as paper
from engine.cluster import retrain_on
from engine.configuration import SketchConfiguration
from engine.devices import here
from engine.directions import Ensemble
from engine.documents import Documents, read_documents
from engine.errors import EngineError
from engine.locations import parse_location
from engine.measure import Measurement, targets
from engine.model import ModelConfiguration
from engine.plots import plot_accuracy, plot_curve, plot_expansion, plot_norms
from engine.question import Question
from engine.resident import ResidentSketch
from engine.sketch import build as build_sketch
from engine.sketch import direction_steps
from engine.stability import stability
from engine.store import Artifact
from engine.terminal import OnCluster, on_cluster, progress_bar, refuse
from engine.threads import use_one_thread
from engine.train import TrainingConfiguration
from engine.workers import worker_count

app = typer.Typer(
    name="engine", help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
console = Console()

Shuffle = Annotated[int | None, typer.Option(help="Shuffle the documents with this seed first.")]
Limit = Annotated[int | None, typer.Option(help="Use the first so many documents.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Output = Annotated[Path | None, typer.Option("--output", help="Write the figures as JSON here.")]


@app.command()
def build(
    documents: Annotated[Path, typer.Argument(help="Documents: text (one a line), CSV or JSONL.")],
    artifact: Annotated[str, typer.Argument(help="Directory to create, or URL of an object store, s3://… or gs://…")],
    axes: Annotated[bool, typer.Option(help="Train along every unit's axis too: exact first orders.")] = False,
    pairs: Annotated[bool, typer.Option(help="With axes: retrain without every two units, too.")] = False,
    anchors: Annotated[int, typer.Option(help="Retrained sets that axes take their bars from.")] = 1_000,
    directions: Annotated[int, typer.Option(help="Random directions, k; 0 with axes for none.")] = 500,
    degree: Annotated[int, typer.Option(help="Highest order kept.")] = 3,
    ensemble: Annotated[Ensemble, typer.Option(help="Distribution of the directions.")] = "unitary",
    seed: Annotated[int, typer.Option(help="Of directions and anchors.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    block: Annotated[int, typer.Option(help="Directions trained together.")] = 128,
    layers: int = 1,
    width: int = 16,
    heads: int = 4,
    context: int = 16,
    epochs: int = 1,
    learning_rate: float = 0.01,
    epsilon: float = 1e-3,
    model_seed: Annotated[int, typer.Option(help="Seed of the initial parameters.")] = 42,
    shuffle: Shuffle = None,
    limit: Limit = None,
    device: Device = "cpu",
    cluster: OnCluster = None,
) -> None:
    """Train a model and sketch its training run."""
    chosen, shuffled_first = _chosen(documents, shuffle, limit, model_seed)
    configuration = SketchConfiguration(
        model=ModelConfiguration(
            vocabulary=chosen.vocabulary,
            layers=layers,
            width=width,
            heads=heads,
            context=context,
            seed=model_seed,
            shuffled_first=shuffled_first,
        ),
        training=TrainingConfiguration(epochs=epochs, learning_rate=learning_rate, epsilon=epsilon),
        axes=axes,
        pairs=pairs,
        anchors=anchors,
        ensemble=ensemble,
        directions=directions,
        degree=degree,
        seed=seed,
        dtype=dtype,  # type: ignore[arg-type]  # checked by the configuration
        block=block,
    )
    destination = parse_location(artifact)
    workers = worker_count(direction_steps(configuration, chosen), device=device)
    with on_cluster(cluster, console=console) as place, progress_bar("Sketching", "steps", console=console) as progress:
        done = build_sketch(
            chosen, configuration, destination, device=device, workers=workers, place=place, progress=progress
        )
    console.print(f"{artifact}: {done.manifest.size_bytes / 1e6:.1f} MB, checksum {done.checksum[:12]}")
    beside = device if cluster is None else here(device)  # which needn't have what the nodes have
    if isinstance(done, Artifact) and (run := stability(ResidentSketch(done, device=beside))) is not None:
        console.print(run.sentence, highlight=False)


@app.command()
def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Directory of the sketch.")],
    documents: Annotated[Path, typer.Argument(help="The documents that it was built from.")],
    texts: Annotated[list[str] | None, typer.Option("--text", help="Loss on this text; repeatable.")] = None,
    sizes: Annotated[list[int] | None, typer.Option("--size", help="Size of random sets; repeatable.")] = None,
    count: Annotated[int, typer.Option(help="Random sets of each size.")] = 40,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the random sets.")] = 0,
    shuffle: Shuffle = None,
    limit: Limit = None,
    device: Device = "cpu",
    cluster: OnCluster = None,
    output: Output = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them into this PNG file.")] = None,
) -> None:
    """Compare estimates with fresh retrains, over random and coherent deletion sets."""
    chosen, _ = _chosen(documents, shuffle, limit)
    sketch = ResidentSketch.open(artifact, device=device if cluster is None else here(device))
    wanted = sizes or [size for size in (1, 10, 50, 100) if size < chosen.unit_count]
    sets = evaluation.random_sets(chosen, sizes=wanted, count=count, seed=seed) + evaluation.coherent_sets(chosen)
    measurements = [Measurement(text=text) for text in texts or chosen.texts[:8]]
    question = Question(confidence=confidence)
    with (
        on_cluster(cluster, console=console) as place,
        progress_bar("Retraining", "steps", console=console) as progress,
    ):
        figures, pairs = evaluation.evaluate(
            sketch,
            chosen,
            sets,
            measurements,
            question=question,
            retrain=retrain_on(place, device),
            progress=progress,
        )
    console.print(evaluation.accuracy_table(figures, confidence))
    _write(
        output,
        {
            "seed": seed,
            "texts": [m.text for m in measurements],
            "confidence": confidence,
            "accuracy": [asdict(figure) for figure in figures],
            "pairs": [asdict(pair) for pair in pairs],
        },
    )
    if plot is not None:
        plot_accuracy(pairs, plot)
        console.print(f"Drawn in {plot}")


@app.command()
def figures(
    documents: Annotated[Path, typer.Argument(help="Documents: text (one a line), CSV or JSONL.")],
    folder: Annotated[Path, typer.Argument(help="For the PNG and JSON files; created where it isn't there.")],
    text: Annotated[str, typer.Option(help="Norms and expansion of the loss on this text.")] = "max",
    contains: Annotated[str, typer.Option(help="Expansion along all units that contain this.")] = "x",
    curve_text: Annotated[str, typer.Option(help="The sketch's curve of the loss on this text.")] = "quinn",
    curve_contains: Annotated[str, typer.Option(help="The sketch's curve along all units that contain this.")] = "q",
    order: Annotated[int, typer.Option(min=1, help="Highest order of the norms.")] = 30,
    directions: Annotated[int, typer.Option(min=2, help="Directions that the norms are averaged over.")] = 12,
    degree: Annotated[int, typer.Option(min=1, help="Of the expansion.")] = 6,
    sketch_directions: Annotated[int, typer.Option(min=2, help="Of the sketch, to degree 3.")] = 500,
    learning_rate: float = 0.01,
    epsilon: float = 1e-3,
    seed: Annotated[int, typer.Option(help="Seed of the directions.")] = 0,
    model_seed: Annotated[int, typer.Option(help="Seed of the initial parameters.")] = 42,
    shuffle: Shuffle = None,
    limit: Limit = None,
    device: Device = "cpu",
) -> None:
    """Reproduce the paper's figures: derivative norms, the expansion along a set, a sketch's curve."""
    chosen, shuffled_first = _chosen(documents, shuffle, limit, model_seed)
    precise = SketchConfiguration(
        model=ModelConfiguration(vocabulary=chosen.vocabulary, seed=model_seed, shuffled_first=shuffled_first),
        training=TrainingConfiguration(learning_rate=learning_rate, epsilon=epsilon),
        ensemble="sphere",
        directions=directions,
        degree=degree,
        seed=seed,
        dtype="float64",
    )
    deleted = paper.units_containing(chosen, contains)
    of_curve = paper.units_containing(chosen, curve_contains)
    downweights = [tenths / 10 for tenths in range(11)]
    loss, curve_loss = Measurement(text=text), Measurement(text=curve_text)
    for measurement in (loss, curve_loss):
        targets(measurement, precise.model)  # refused now rather than after minutes
    folder.mkdir(parents=True, exist_ok=True)

    with progress_bar("Expansion", "steps", console=console) as progress:
        along = paper.expansion(
            chosen, precise, deleted, loss, downweights=downweights, device=device, progress=progress
        )
    plot_expansion(along, folder / "expansion.png")
    _write(folder / "expansion.json", asdict(along))
    console.print(
        f"Loss on {text!r} without the {len(deleted)} units with {contains!r}: {along.retrained[0]:.5f} becomes "
        f"{along.retrained[-1]:.5f}; the expansion's error by degree: {' '.join(f'{e:.4f}' for e in along.errors)}",
        highlight=False,
    )

    averaged = replace(precise, ensemble="unitary", directions=sketch_directions, degree=3, dtype="float32")
    with progress_bar("Sketching", "steps", console=console) as progress:
        workers = worker_count(direction_steps(averaged, chosen), device=device)
        built = build_sketch(chosen, averaged, folder / "sketch", device=device, workers=workers, progress=progress)
    with progress_bar("Retraining", "steps", console=console) as progress:
        curve = paper.sketch_curve(
            ResidentSketch(built, device=device),
            chosen,
            of_curve,
            curve_loss,
            downweights=downweights,
            progress=progress,
        )
    plot_curve(curve, folder / "curve.png")
    _write(folder / "curve.json", asdict(curve))
    said = ", ".join(
        f"{values[-1] - curve.retrained[0]:.4f} ± {errors[-1]:.4f}"
        for values, errors in zip(curve.estimates, curve.standard_errors, strict=True)
    )
    console.print(
        f"Loss on {curve_text!r} without the {len(of_curve)} units with {curve_contains!r} changes by "
        f"{curve.retrained[-1] - curve.retrained[0]:.4f}; {sketch_directions} directions say by degree: {said}",
        highlight=False,
    )

    with progress_bar("Norms", "steps", console=console) as progress:
        norms = paper.derivative_norms(chosen, replace(precise, degree=order), loss, device=device, progress=progress)
    plot_norms(norms, folder / "norms.png")
    _write(folder / "norms.json", asdict(norms))
    console.print(
        "Derivative norms, log2 by order (of single directions): "
        + ", ".join(
            f"{r}: {log2(norm):.1f} ({log2(low):.1f} … {log2(high):.1f})"
            for r, norm, low, high in zip(norms.orders, norms.norms, norms.smallest, norms.largest, strict=True)
        ),
        highlight=False,
    )


@app.command()
def bench(
    documents: Annotated[int, typer.Option(help="Bundled names, a unit each.")] = 1_000,
    directions: Annotated[int, typer.Option(help="Random directions, k.")] = 500,
    degree: Annotated[int, typer.Option(help="Highest order kept.")] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds that medians are taken over.")] = 5,
    whole: Annotated[bool, typer.Option(help="Make whole builds, and ask their sketches.")] = True,
    growth: Annotated[bool, typer.Option(help="Measure how cost grows.")] = True,
    device: Device = "cpu",
    output: Annotated[Path | None, typer.Option("--output", help="Append the figures as JSON lines here.")] = None,
) -> None:
    """Time the engine beside a plain training step and a plain inference."""
    scale = benchmark.Scale(
        documents=documents,
        directions=directions,
        degree=degree,
        rounds=rounds,
        whole=whole,
        growth=growth,
        device=device,
    )
    figures = []
    with console.status("Measuring") as status:
        for figure in benchmark.bench(scale):
            figures.append(figure)
            status.update(f"Measured: {figure.name}")
    conditions = benchmark.conditions(device)
    console.print(benchmark.table(figures, conditions))
    if output is not None:
        benchmark.append(output, figures, conditions)
        console.print(f"Appended to {output}")


def _chosen(path: Path, shuffle: int | None, limit: int | None, model_seed: int = 0) -> tuple[Documents, int]:
    """The documents asked for, and how many the model's generator shuffles before it draws parameters."""
    read = read_documents(path)
    if shuffle is None:
        return read.first(limit or len(read)), 0
    return read.shuffled(shuffle, limit=limit), len(read) if shuffle == model_seed else 0


def _write(output: Path | None, content: object) -> None:
    if output is not None:
        output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        console.print(f"Written to {output}")


def main() -> None:
    """Run the command line; what the engine refuses becomes one line and exit code 2."""
    use_one_thread()
    try:
        app()
    except EngineError as error:
        refuse(str(error))


if __name__ == "__main__":
    main()
