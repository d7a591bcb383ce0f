"""What a sketch holds in memory to be measured: jets along its directions and axes, and the retrained models.

`Holdings` is how the rest of the engine sees it. All of it may lie in this process (`Kept`), or be spread over several
(`engine.shards`), and what was retrained after the build is held beside it (`Extended`): whoever measures sees one list
of directions, one of axes and one of models, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from engine.blocks import PLANE_NAMES
from engine.configuration import Block, SketchConfiguration
from engine.errors import ArtifactError
from engine.held import Held, Room, room
from engine.jet import Jet
from engine.native.groups import Text
from engine.store import PARAMETERS, Artifact, read_tensors


class Measured(NamedTuple):
    """Jets of the probabilities of chosen tokens, one a text; None for a kind that isn't held at all.

    Attributes:
        directions: along the random directions, [T].
        axes: along the axes, [T].
        models: of the retrained models, constants of shape [B, T].
    """

    directions: Sequence[Jet] | None
    axes: Sequence[Jet] | None
    models: Sequence[Jet] | None


class Holdings(Protocol):
    """Trained parameters along directions and axes, and retrained models."""

    @property
    def nbytes(self) -> int:
        """What they occupy in the process that holds the most of them."""
        ...

    @property
    def parts(self) -> tuple[range, ...]:
        """Which of the sketch's random directions are held, in order."""
        ...

    @property
    def sets(self) -> Sequence[tuple[int, ...]]:
        """The deletion sets of the retrained models, in their order."""
        ...

    def available(self) -> Holdings:
        """What of them can be measured at this moment; all of them are this object.

        Raises:
            ShardsAwayError: too little is left to answer from.
        """
        ...

    def measure(self, texts: Sequence[Text]) -> Measured:
        """Measure several texts in one pass.

        Args:
            texts: what to look at, as `engine.measure.targets` says.

        Raises:
            ShardLostError: some of them went away meanwhile.
        """
        ...

    def models(self, which: Sequence[int] | None = None) -> Tensor:
        """Parameters of all retrained models, or of some: [n, P].

        Raises:
            ShardLostError: some of them went away meanwhile.
            ShardsAwayError: they were away before.
        """
        ...


class Part(NamedTuple):
    """One of some equal parts of whatever there is; the first is number 0."""

    number: int
    of: int

    def range(self, count: int) -> range:
        """Which of so many things are this part's."""
        return range(count * self.number // self.of, count * (self.number + 1) // self.of)


WHOLE = Part(0, 1)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Holdings in this process's memory, or its device's: a whole sketch, or a part of each kind.

    Attributes:
        parts: which directions these are.
        directions: jets along them; None where the sketch has none.
        axes: real jets along axes; None where the sketch has none.
        retrained: plain models; None where the sketch has none.
        sets: the deletion sets of these models, in their order.
    """

    parts: tuple[range, ...]
    directions: Held | None
    axes: Held | None
    retrained: Held | None
    sets: Sequence[tuple[int, ...]]

    @property
    def nbytes(self) -> int:
        """As of `Holdings`."""
        return sum(held.nbytes for held in (self.directions, self.axes, self.retrained) if held is not None)

    def available(self) -> Kept:
        """As of `Holdings`: what is here stays here."""
        return self

    def measure(self, texts: Sequence[Text]) -> Measured:
        """As of `Holdings`."""
        kinds = (self.directions, self.axes, self.retrained)
        return Measured(*(None if held is None else held.probabilities(texts) for held in kinds))

    def models(self, which: Sequence[int] | None = None) -> Tensor:
        """As of `Holdings`."""
        assert self.retrained is not None
        return self.retrained.rows(which)


@dataclass(frozen=True, kw_only=True)
class Extended:
    """Holdings with models that were retrained after the build, behind those of the build.

    Attributes:
        built: the holdings of the build.
        later: the models that came later.
        later_sets: their deletion sets.
    """

    built: Holdings
    later: Held
    later_sets: Sequence[tuple[int, ...]]

    @property
    def nbytes(self) -> int:
        """As of `Holdings`."""
        return self.built.nbytes + self.later.nbytes

    @property
    def parts(self) -> tuple[range, ...]:
        """As of `Holdings`."""
        return self.built.parts

    @property
    def sets(self) -> Sequence[tuple[int, ...]]:
        """As of `Holdings`."""
        return [*self.built.sets, *self.later_sets]

    def available(self) -> Extended:
        """As of `Holdings`."""
        left = self.built.available()
        return self if left is self.built else Extended(built=left, later=self.later, later_sets=self.later_sets)

    def measure(self, texts: Sequence[Text]) -> Measured:
        """As of `Holdings`."""
        found, later = self.built.measure(texts), self.later.probabilities(texts)
        models = later if found.models is None else [joined(both) for both in zip(found.models, later, strict=True)]
        return found._replace(models=models)

    def models(self, which: Sequence[int] | None = None) -> Tensor:
        """As of `Holdings`."""
        first = len(self.built.sets)
        rows = torch.tensor(range(first + self.later.count) if which is None else which, dtype=torch.int64)
        is_later = rows >= first
        later = self.later.rows((rows[is_later] - first).tolist())
        if is_later.all():
            return later
        built = self.built.models(rows[~is_later].tolist())
        found = torch.empty(len(rows), built.shape[1], dtype=built.dtype, device=built.device)
        found[~is_later], found[is_later] = built, later
        return found


def hold(artifact: Artifact, *, device: torch.device, part: Part = WHOLE) -> Kept:
    """Read what an artifact holds, or a part of each kind, into memory.

    Everything is a copy: what is mapped changes with the file, and ends the process where that is cut off.

    Args:
        artifact: an opened one, of which at least `files_of` were verified.
        device: where it is to be.
        part: which part.

    Raises:
        ArtifactError: the tensors don't fit the manifest.
    """
    configuration, units = artifact.manifest.configuration, artifact.manifest.plan.source.units
    directions, axes = part.range(configuration.directions), part.range(units if configuration.axes else 0)
    models = part.range(configuration.retrained(units))
    try:
        constant = _trained(artifact, device)
    except (KeyError, RuntimeError) as error:
        raise ArtifactError("The tensors don't fit the manifest.") from error
    rooms = {
        "directions": _room(configuration, directions, device, constant=constant, planes=2),
        "axes": _room(configuration, axes, device, constant=constant, planes=1),
        "retrained": _room(configuration, models, device),
    }
    ranges = {"directions": directions, "axes": axes, "retrained": models}
    sets: list[tuple[int, ...]] = []
    try:
        for block in configuration.blocks(units):
            wanted, held = _common(block, ranges[block.kind]), rooms[block.kind]
            if wanted and held is not None:
                tensors = read_tensors(artifact.path / block.file)
                sets += _fill(held, block, wanted, ranges[block.kind].start, tensors, configuration.degree)
    except (KeyError, RuntimeError) as error:
        raise ArtifactError("The tensors don't fit the manifest.") from error
    return Kept(
        parts=(directions,) if directions else (),
        directions=rooms["directions"],
        axes=rooms["axes"],
        retrained=rooms["retrained"],
        sets=sets,
    )


def files_of(configuration: SketchConfiguration, units: int, part: Part = WHOLE) -> set[str]:
    """Names of the files of an artifact that `hold` reads for a part."""
    counts = {"directions": configuration.directions, "axes": units, "retrained": configuration.retrained(units)}
    blocks = configuration.blocks(units)
    return {PARAMETERS, *(block.file for block in blocks if _common(block, part.range(counts[block.kind])))}


def joined(jets: Sequence[Jet]) -> Jet:
    """Jets along several lists of directions as along one; of plain models the constants of several lists as one."""
    first = jets[0]
    if not first.higher:
        return Jet(torch.cat([one.constant for one in jets]))
    return Jet(
        first.constant,
        tuple(
            tuple(torch.cat([one.higher[order][plane] for one in jets]) for plane in range(len(planes)))
            for order, planes in enumerate(first.higher)
        ),
    )


def _trained(artifact: Artifact, device: torch.device) -> Tensor:
    """The trained parameters, flat."""
    constants, model = read_tensors(artifact.path / PARAMETERS), artifact.manifest.configuration.model
    return torch.cat([constants[f"trained.{name}"].flatten() for name in model.shapes]).to(device)


def _room(
    configuration: SketchConfiguration,
    which: range,
    device: torch.device,
    *,
    constant: Tensor | None = None,
    planes: int = 1,
) -> Room | None:
    """Room for some jets with these constants, or for plain models; None for none."""
    if not which:
        return None
    return room(
        configuration.model,
        len(which),
        dtype=configuration.torch_dtype,
        device=device,
        degree=0 if constant is None else configuration.degree,
        planes=planes,
        constant=constant,
    )


def _common(block: Block, wanted: range) -> range:
    """What of a block is wanted."""
    return range(max(block.start, wanted.start), min(block.stop, wanted.stop))


def _fill(
    held: Room, block: Block, wanted: range, first: int, tensors: dict[str, Tensor], degree: int
) -> list[tuple[int, ...]]:
    """Put what is wanted of a block where it belongs; the deletion sets of its retrained models."""
    within, at = slice(wanted.start - block.start, wanted.stop - block.start), wanted.start - first
    if block.kind == "retrained":
        _check(tensors["models"], block)
        held.put(at, tensors["models"][within])
        sizes: list[int] = tensors["sizes"].tolist()
        return [tuple(units.tolist()) for units in torch.split(tensors["members"], sizes)][within]
    planes = PLANE_NAMES if block.kind == "directions" else PLANE_NAMES[:1]
    for order in range(1, degree + 1):
        for number, name in enumerate(planes):
            rows = tensors[f"order{order}.{name}"]
            _check(rows, block)
            held.put(at, rows[within], order=order, plane=number)
    return []


def _check(rows: Tensor, block: Block) -> None:
    if len(rows) != block.stop - block.start:
        raise ArtifactError("The tensors don't fit the manifest.")
