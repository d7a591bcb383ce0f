"""Everything that the engine refuses, as classes. They carry no HTTP status: the web layer maps them.

A message says what is wrong, where, and what to change. It never holds a file-system path or a person's identity, so
that it may be shown to whoever asked.
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of all errors that the engine raises on purpose."""


class ConfigurationError(EngineError):
    """A model, training or sketch configuration that can't be built."""


class DocumentsError(EngineError):
    """Malformed documents to import.

    Attributes:
        line: 1-based line of the input where the trouble is, or None where it concerns the whole input.
    """

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(message if line is None else f"Line {line}: {message}")
        self.line = line


class ArtifactError(EngineError):
    """An artifact that is damaged, truncated, incomplete or not ours."""


class StoreError(ArtifactError):
    """An object store that is away, or refuses."""


class WorkerError(EngineError):
    """A process of a build that ended before its work did."""


class ShardsAwayError(EngineError):
    """So much of a sketch is away that it can't answer until its shards are back."""


class ShardLostError(ShardsAwayError):
    """A shard of a sketch that went away while it was asked; the others may still answer."""


class NotLoadedError(ShardLostError):
    """A shard that has begun anew, and hasn't loaded a sketch yet."""


class QuestionError(EngineError):
    """A question that these data or this sketch can't answer."""


class TextLengthError(QuestionError):
    """A text that is empty or longer than the model's context."""


class UnknownCharacterError(QuestionError):
    """A text with a character outside the model's vocabulary."""


class DegreeError(QuestionError):
    """A degree above the sketch's, or below zero."""


class DownweightError(QuestionError):
    """A downweight outside [0, 1], or none at all."""


class DeletionSetError(QuestionError):
    """A deletion set that is empty, repeats itself, names what doesn't exist, or is the whole data set."""
