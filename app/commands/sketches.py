"""``neverseen sketches``: build, list, and compare with retrains."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from app import catalog
from app.building import build_sketch, rebuild_sketch, sketch_cost
from app.commands import console, deletion_of, opened, predictor_of, resolved
from app.db import Database, transaction
from app.leftovers import find_leftovers, remove_leftovers
from app.pinning import MOST_PINS, all_pins
from app.pinning import pin as pin_subsets
from app.provenance import build_of
from app.secret import load_secret
from app.serving import artifact_of
from app.settings import Settings
from app.tables import SketchVersion
from app.uploading import upload_artifacts
from engine.cluster import Cluster, retrain_on
from engine.configuration import SketchConfiguration
from engine.cost import Cost, expected_accuracy
from engine.devices import here
from engine.directions import Ensemble
from engine.documents import Documents
from engine.evaluate import accuracy_table, coherent_sets, evaluate, random_sets
from engine.measure import Measurement
from engine.model import ModelConfiguration
from engine.plots import plot_accuracy
from engine.question import LEAST_CONFIDENCE, MOST_CONFIDENCE, Question
from engine.resident import ResidentSketch
from engine.stability import stability
from engine.terminal import OnCluster, on_cluster, progress_bar, rough_duration
from engine.train import TrainingConfiguration

MOST_AXES = 4_000
"""Units up to which axes are built where nothing else is said: 200 MB of the default model. Axes cost units times
steps, and the models retrained beside them as much again: some minutes on two cores for as many documents."""

MOST_PAIRED = 120
"""Units up to which every pair is retrained where nothing else is said: 7,140 pairs, and as many models."""

app = typer.Typer(help="Build, list and evaluate sketches.", no_args_is_help=True)


@app.command()
def build(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch; new, or one of the same dataset.")],
    dataset: Annotated[str, typer.Option(help="Name of the dataset.")],
    axes: Annotated[
        bool | None, typer.Option(help=f"Exact first orders; by default up to {MOST_AXES:,} units.")
    ] = None,
    directions: Annotated[
        int | None, typer.Option(help="Random directions, k; by default none beside axes, else 500.")
    ] = None,
    pairs: Annotated[
        bool | None, typer.Option(help=f"Exact interactions of two; by default up to {MOST_PAIRED} units.")
    ] = None,
    anchors: Annotated[int, typer.Option(help="Retrained sets that axes take their bars from.")] = 1_000,
    degree: Annotated[int, typer.Option(help="Highest order kept.")] = 3,
    ensemble: Annotated[Ensemble, typer.Option(help="Distribution of the directions.")] = "unitary",
    seed: Annotated[int, typer.Option(help="Of directions and anchors.")] = 0,
    dtype: Annotated[Literal["float32", "float64"], typer.Option(help="Precision of training.")] = "float32",
    block: Annotated[int, typer.Option(help="Directions trained together.")] = 128,
    layers: Annotated[int, typer.Option(help="Blocks of the model.")] = 1,
    width: Annotated[int, typer.Option(help="Width of the model.")] = 16,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    context: Annotated[int, typer.Option(help="Positions that are trained on.")] = 16,
    epochs: Annotated[int, typer.Option(help="Passes over the documents.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="At the first step; decays to 0.")] = 0.01,
    epsilon: Annotated[float, typer.Option(help="Inside Adam's root.")] = 1e-3,
    model_seed: Annotated[int, typer.Option(help="Seed of the initial parameters.")] = 42,
    cluster: OnCluster = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built, and stop.")] = False,
    pin: Annotated[
        bool, typer.Option(help=f"Retrain without each subset of the dataset, up to {MOST_PINS}, and keep the models.")
    ] = True,
) -> None:
    """Train a model and sketch its training run; the result becomes the sketch's current version."""
    with opened() as (settings, database), on_cluster(cluster, console=console) as place:
        with transaction(database, writes=False) as session:
            documents = catalog.load_documents(session, catalog.get_dataset(session, dataset))
            catalog.check_sketch(session, sketch, dataset)
        with_axes = documents.unit_count <= MOST_AXES if axes is None else axes
        configuration = SketchConfiguration(
            model=ModelConfiguration(
                vocabulary=documents.vocabulary,
                layers=layers,
                width=width,
                heads=heads,
                context=context,
                seed=model_seed,
            ),
            training=TrainingConfiguration(epochs=epochs, learning_rate=learning_rate, epsilon=epsilon),
            axes=with_axes,
            pairs=(with_axes and documents.unit_count <= MOST_PAIRED) if pairs is None else pairs,
            anchors=anchors,
            ensemble=ensemble,
            directions=(0 if with_axes else 500) if directions is None else directions,
            degree=degree,
            seed=seed,
            dtype=dtype,
            block=block,
        )
        cut = sum(len(text) + 1 > context for text in documents.texts)
        if cut:
            console.print(
                f"{cut:,} documents don't fit the context of {context} positions; what is beyond isn't trained on.",
                highlight=False,
            )
        with console.status("Measuring some steps"):
            cost = sketch_cost(settings, sketch=sketch, documents=documents, configuration=configuration, cluster=place)
        console.print(_announcement(documents, configuration, cost, spread=place is not None), highlight=False)
        if dry_run:
            return
        with progress_bar("Sketching", "steps", console=console) as progress:
            version = build_sketch(
                database,
                settings,
                sketch=sketch,
                dataset=dataset,
                configuration=configuration,
                cluster=place,
                progress=progress,
            )
        console.print(f"{version.label} is current: {version.size_bytes / 1e6:.1f} MB.", highlight=False)
        if pin:
            _pin(database, settings, version, place)
        artifact = artifact_of(version, settings.artifacts)
        resident = ResidentSketch(artifact.open(), device=_device_here(settings, place))
        if (run := stability(resident)) is not None:
            console.print(run.sentence, highlight=False)


@app.command()
def rebuild(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    version: Annotated[
        int | None, typer.Option(min=1, max=2**31 - 1, help="Number of the version; by default the current one.")
    ] = None,
    cluster: OnCluster = None,
    retire_before: Annotated[bool, typer.Option("--retire", help="Take the version before out of service.")] = False,
    pin: Annotated[
        bool, typer.Option(help=f"Retrain without each subset of the dataset, up to {MOST_PINS}, and keep the models.")
    ] = True,
) -> None:
    """Build the successor of a version whose data were erased in part, without these; it becomes current."""
    with opened() as (settings, database), on_cluster(cluster, console=console) as place:
        with transaction(database, writes=False) as session:
            before = catalog.get_version(session, sketch, version)
            catalog.load_remaining(session, before.dataset)  # refuses where there is nothing to do
        with progress_bar("Sketching", "steps", console=console) as progress:
            built = rebuild_sketch(
                database, settings, sketch=sketch, version=before.number, cluster=place, progress=progress
            )
        with transaction(database) as session:
            dataset = catalog.get_version_of_id(session, built.id).dataset
            if retire_before:
                catalog.retire(session, sketch=sketch, version=before.number)
        if pin:
            _pin(database, settings, built, place)
    console.print(
        f"{built.label} is current: {dataset.document_count:,} documents, the dataset {dataset.name}; "
        f"{before.erased_units:,} erased units less than {before.label}.",
        highlight=False,
    )
    retire_first = "" if retire_before else f"neverseen sketches retire {sketch} {before.number} && "
    console.print(
        f"{before.label} still holds what its model learned from them. To give it up:\n  {retire_first}"
        f"neverseen sketches delete {sketch} {before.number} && neverseen sketches gc",
        highlight=False,
    )


def _announcement(documents: Documents, configuration: SketchConfiguration, cost: Cost, *, spread: bool) -> Table:
    """What a build will make, how long it will take, how large it will be, and what to expect of it."""
    retrained = f"{configuration.retrained(documents.unit_count):,} retrained models"
    what = "each, each pair, and anchors" if configuration.pairs else "each, and anchors"
    axes = f"{documents.unit_count:,} axes and {retrained} (without {what})"
    directions = f"{configuration.directions:,} random directions"
    parts = ([axes] if configuration.axes else []) + ([directions] if configuration.directions else [])
    together = f", on {cost.workers} cores" if cost.workers > 1 else ""
    share = f"; {cost.retraining:.0%} of the work is retraining" if cost.retraining else ""
    takes = rough_duration(cost.seconds) + together + share if cost.seconds else "no time: it has been built"
    accuracy = expected_accuracy(configuration)
    table = Table.grid(padding=(0, 2), pad_edge=False)
    rows = {
        "builds": f"{' and '.join(parts)} to order {configuration.degree}, from {len(documents):,} documents; "
        f"{cost.direction_steps:,} direction·steps",
        "takes": takes,
        "memory": f"{cost.memory_bytes / 2**20:,.0f} MiB at most" + (", each worker" if spread else ""),
        "size": f"{cost.size_bytes / 1e6:.1f} MB",
        "accuracy": accuracy.expected,
        "better": accuracy.advice,
    }
    for heading, words in rows.items():
        table.add_row(heading, words)
    return table


def _device_here(settings: Settings, place: Cluster | None) -> str:
    """The device for what this machine does itself: beside a cluster that has GPUs it needs none."""
    return settings.device if place is None else here(settings.device)


def _pin(database: Database, settings: Settings, version: SketchVersion, place: Cluster | None) -> None:
    """Pin the dataset's subsets to a version, and say how many."""
    pins = all_pins(database, settings, sketch=version.sketch.name, version=version.number)
    if not pins.subsets:
        console.print("The dataset has no subset to pin; neverseen subsets pin does it later.", highlight=False)
        return
    if pins.missing:
        with progress_bar("Pinning subsets", "steps", console=console) as progress:
            pin_subsets(database, settings, pins, retrain=retrain_on(place, settings.device), progress=progress)
    count = len(pins.subsets)
    which = (
        f"the first {count:,} of {count + pins.left_out:,} subsets by name" if pins.left_out else f"{count:,} subsets"
    )
    more = " neverseen subsets pin takes the others." if pins.left_out else ""
    console.print(f"Pinned {which}: the model was retrained without each.{more}", highlight=False)


@app.command("list")
def list_() -> None:
    """Show all sketches and their versions."""
    table = Table("version", "current", "state", "dataset", "axes", "directions", "degree", "MB", "added")
    with opened() as (_, database), transaction(database, writes=False) as session:
        for sketch in catalog.list_sketches(session, limit=1000, offset=0).items:
            for version in catalog.list_versions(session, sketch, limit=1000, offset=0).items:
                table.add_row(
                    version.label,
                    "yes" if version.id == sketch.current_version_id else "",
                    version.state,
                    version.dataset.name + (f" ({version.erased_units:,} erased)" if version.contains_erased else ""),
                    "yes" if version.configuration.get("axes") else "no",
                    str(version.configuration["directions"]),
                    str(version.configuration["degree"]),
                    f"{version.size_bytes / 1e6:.1f}",
                    f"{version.created_at:%Y-%m-%d %H:%M}",
                )
    console.print(table)


@app.command()
def show(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    version: Annotated[
        int | None, typer.Argument(min=1, max=2**31 - 1, help="Number of the version; by default the current one.")
    ] = None,
) -> None:
    """Show how a version was built, as its artifact says."""
    with opened() as (settings, database):
        row, build = build_of(database, settings.artifacts, sketch, version)
    table = Table.grid(padding=(0, 2), pad_edge=False)
    libraries = ", ".join(f"{name} {number}" for name, number in sorted(build.libraries.items()))
    rows = {
        "version": f"{row.label}, {row.state}",
        "of": f"{build.document_count:,} documents, {build.unit_count:,} units, fingerprint {build.fingerprint}",
        "model": f"{build.parameter_count:,} parameters, {build.step_count:,} steps of training",
        "sketch": f"{'axes and ' if build.axes else ''}{build.directions:,} random directions to order {build.degree}",
        "retrained": f"{build.retrained_count:,} models",
        "built": f"{build.created_at:%Y-%m-%d %H:%M} UTC, in {rough_duration(build.build_seconds)}, on {build.device},"
        f" by {'compiled code' if build.native else 'torch'}",
        "with": libraries,
    }
    for heading, words in rows.items():
        table.add_row(heading, escape(words))
    console.print(table, highlight=False)


@app.command()
def promote(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    version: Annotated[int, typer.Argument(min=1, max=2**31 - 1, help="Number of the version.")],
    expected: Annotated[
        int | None, typer.Option(min=1, max=2**31 - 1, help="The current version as you know it; refuse if it moved.")
    ] = None,
) -> None:
    """Make a version current: running services load it, then switch to it."""
    with opened() as (_, database), transaction(database) as session:
        if expected is None:
            expected = catalog.get_sketch(session, sketch).current_number
        catalog.promote(session, sketch=sketch, version=version, expected=expected)
    console.print(f"{sketch} v{version} is current.", highlight=False)


@app.command()
def rollback(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    expected: Annotated[
        int | None, typer.Option(min=1, max=2**31 - 1, help="The current version as you know it; refuse if it moved.")
    ] = None,
) -> None:
    """Make the version current that was so before; once more takes that back."""
    with opened() as (_, database), transaction(database) as session:
        version = catalog.rollback(session, sketch=sketch, expected=expected)
    console.print(f"{sketch} v{version} is current.", highlight=False)


@app.command()
def retire(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    version: Annotated[int, typer.Argument(min=1, max=2**31 - 1, help="Number of the version.")],
) -> None:
    """Take a version out of service; its artifact stays."""
    with opened() as (_, database), transaction(database) as session:
        catalog.retire(session, sketch=sketch, version=version)
    console.print(f"{sketch} v{version} is retired.", highlight=False)


@app.command()
def delete(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    version: Annotated[int, typer.Argument(min=1, max=2**31 - 1, help="Number of the version.")],
) -> None:
    """Give up the artifact of a retired version; `gc` then removes it."""
    with opened() as (_, database), transaction(database) as session:
        catalog.delete_version(session, sketch=sketch, version=version)
    console.print(f"{sketch} v{version} is deleted; neverseen sketches gc frees its space.", highlight=False)


@app.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and stop.")] = False,
    idle_hours: Annotated[float, typer.Option(min=0, help="Spare what changed in the last so many hours.")] = 24,
) -> None:
    """Remove artifacts that no version names, and what builds left that never ended."""
    with opened() as (settings, database):
        idle_seconds = 3600 * idle_hours
        installation = None if settings.artifacts_url is None else load_secret(settings).installation
        leftovers = find_leftovers(database, settings.artifacts, idle_seconds=idle_seconds, installation=installation)
        if not leftovers:
            console.print("Every artifact is named by a version, or changed lately: nothing to remove.")
            return
        table = Table("would be removed", "MB", "idle")
        for one in leftovers:
            table.add_row(one.name, f"{one.bytes / 1e6:.1f}", rough_duration(one.idle_seconds))
        console.print(table)
        if dry_run or not (yes or typer.confirm("Remove them?")):
            return
        removed = remove_leftovers(
            database, leftovers, settings.artifacts, idle_seconds=idle_seconds, installation=installation
        )
    freed = sum(one.bytes for one in removed) / 1e6
    spared = len(leftovers) - len(removed)
    kept = f" Spared {spared:,} that are needed by now." if spared else ""
    console.print(f"Removed {len(removed):,}, {freed:.1f} MB.{kept}", highlight=False)


@app.command("upload")
def upload_() -> None:
    """Put all artifacts of the artifacts directory into the object store: for an installation that moves to one."""
    with opened() as (settings, database), console.status("Uploading") as status:
        uploaded = upload_artifacts(database, settings, tell=lambda label: status.update(f"Uploaded {label}"))
    console.print(
        f"In the store: {uploaded.versions:,} versions. Put there beside them: {uploaded.models:,} retrained models.",
        highlight=False,
    )
    for sentence in uploaded.damaged:
        console.print(f"Not uploaded: {sentence}", highlight=False)
    if uploaded.damaged:
        raise typer.Exit(1)


@app.command()
def materialise(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    output: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    document: Annotated[list[int] | None, typer.Option(help="Delete this document number; repeatable.")] = None,
    unit: Annotated[list[str] | None, typer.Option(help="Delete this unit; repeatable.")] = None,
    subset: Annotated[str | None, typer.Option(help="Delete this subset.")] = None,
    version: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="By default the current one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write the model without some of its data as a safetensors file."""
    if output.exists() and not force:
        raise typer.BadParameter(f"{output.name} is there already; choose another name, or --force")
    deletion = deletion_of(document, unit, subset)
    with opened() as (settings, database):
        artifact, without = resolved(
            database, settings, "materialise", sketch=sketch, version=version, deletion=deletion
        )
        source = predictor_of(settings).save_counterfactual(artifact, units=without.units, path=output)
    how = "retrained without exactly these" if source == "retrained" else f"added up from the {source}"
    deleted = f"{len(without.units):,} units ({without.documents:,} documents)"
    console.print(f"{output.name}: {artifact.label} without {deleted}, {how}.", highlight=False)


@app.command("evaluate")
def evaluate_(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    version: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="By default the current one.")] = None,
    estimator: Annotated[
        Literal["auto", "sphere", "axes", "pairs", "hybrid", "interpolation", "regression"],
        typer.Option(help="Which one to evaluate."),
    ] = "auto",
    text: Annotated[list[str] | None, typer.Option(help="Measure the loss on this text; repeatable.")] = None,
    size: Annotated[list[int] | None, typer.Option(help="Size of random sets; repeatable.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Random sets of each size.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the random sets.")] = 0,
    confidence: Annotated[
        float, typer.Option(min=LEAST_CONFIDENCE, max=MOST_CONFIDENCE, help="Of the intervals.")
    ] = 0.9,
    cluster: OnCluster = None,
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them into this PNG file.")] = None,
) -> None:
    """Retrain the model for many deletion sets that aren't anchors, and compare the estimates with the truth."""
    for file in (output, plot):
        if file is not None:
            file.touch()  # better now than after all the work
    with opened() as (settings, database), on_cluster(cluster, console=console) as place:
        with transaction(database, writes=False) as session:
            row = catalog.get_version(session, sketch, version)
            documents = catalog.load_documents(session, row.dataset)
            artifact = artifact_of(row, settings.artifacts)
        resident = ResidentSketch(artifact.open(), device=_device_here(settings, place))
        sizes = size or [size for size in (1, 10, 50, 100) if size < documents.unit_count]
        sets = random_sets(documents, sizes=sizes, count=count, seed=seed) + coherent_sets(documents)
        measurements = [Measurement(text=one) for one in text or documents.texts[:8]]
        with progress_bar("Retraining", "steps", console=console) as progress:
            question = Question(estimator=estimator, confidence=confidence)
            figures, pairs = evaluate(
                resident,
                documents,
                sets,
                measurements,
                question=question,
                retrain=retrain_on(place, settings.device),
                progress=progress,
            )
    console.print(accuracy_table(figures, confidence))
    if output is not None:
        content = {
            "version": artifact.label,
            "seed": seed,
            "confidence": confidence,
            "accuracy": [asdict(figure) for figure in figures],
            "pairs": [asdict(pair) for pair in pairs],
        }
        output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        plot_accuracy(pairs, plot)
