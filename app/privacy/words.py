"""What a privacy officer reads in evidence, in plain words: the verdict in a sentence, the method, its limits."""

from __future__ import annotations

from typing import Final, Literal

METHOD: Final = (
    (
        "Baseline is a value of the model as it is. Estimate is that value of a model trained in the same way without "
        "the documents found: in the same order and number of steps, in which these documents have no weight."
    ),
    (
        "The estimate comes from a sketch: while the model was trained, it was recorded how the result changes as "
        "documents are left out, as a truncated polynomial along directions of such changes, together with models that "
        "were really retrained. Retrained is the value of a model trained again without exactly these documents."
    ),
    (
        "A change beyond ± the threshold is material. The retrained value decides where there is one. Else the "
        "interval does: all of it beyond the threshold is yes, all of it within is no, anything else is undecided."
    ),
)

LIMITS: Final = (
    "An estimate is not a retraining: what the truncated polynomial leaves out, it doesn't see.",
    (
        "Intervals rest on models retrained without other sets of documents, most of them random, or on the scatter of "
        "random directions. For documents with much in common, and for more than a quarter of all, they hold less "
        "often than they say. Each is for itself: of twenty at 95%, one is expected to miss."
    ),
    "Only what is listed was measured. It doesn't show that nothing else in the model would be different.",
    (
        "A prediction is not an erasure. A model that was trained on the documents goes on containing what it learned "
        "from them until it is replaced by one trained without them."
    ),
    "Documents are found by links from identities, which the operator made. What isn't linked isn't counted.",
    (
        "The signature shows that the holder of its key made this statement, and that it wasn't changed since. It "
        "doesn't show that the statement is true, nor when it was made; a later head of the audit that is kept "
        "elsewhere shows the latter."
    ),
)

Verdict = Literal["material", "not_material", "undecided", "not_estimated", "no_match"]


def sentence(
    verdict: Verdict,
    *,
    documents: int,
    all_is_everything: bool,
    measured: int,
    material: int,
    undecided: int,
    retrained: int,
    unmeasured: int,
) -> str:
    """The verdict in one sentence.

    Args:
        verdict: over all that was measured.
        documents: of the person.
        all_is_everything: whether they are all that there is.
        measured: how many values were measured; the next three count among these.
        material: whose change is.
        undecided: whose change may be.
        retrained: of which the retrained value is known.
        unmeasured: datasets in which the person was found and nothing measured.
    """
    if verdict == "no_match":
        return "No training document is linked to the identities given, so nothing was measured."
    if verdict == "not_estimated":
        if all_is_everything:
            return "This person's documents are all of the training data: without them there is no model to compare."
        were = "was" if documents == 1 else "were"
        return f"Of this person {count(documents, 'document')} {were} found, but nothing could be measured."
    basis = "retraining" if retrained == measured else "estimate and retraining" if retrained else "estimate"
    without = f"By {basis}, without this person's {count(documents, 'document')}"
    values = count(measured, "measured value")
    if verdict == "material":
        return f"{without}, {material:,} of {values} would differ by more than the threshold."
    if verdict == "not_material":
        none = "the one measured value would not" if measured == 1 else f"none of the {values} would"
        return f"{without}, {none} differ by more than the threshold."
    none = "the one measured value isn't" if measured == 1 else f"none of the {values} is"
    said = f"{without}, {none} shown to differ by more than the threshold"
    if undecided:
        said += f", but for {undecided:,} the interval reaches across it: that can't be ruled out"
    if unmeasured:
        said += f"; in {count(unmeasured, 'dataset')} nothing was measured"
    return f"{said}."


def count(number: int, what: str) -> str:
    """So many of something, "1 document" or "3 documents"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
