"""Evidence: signed, verified by others' programs, consistent, and readable on one sheet.

The oracle of materiality asks for each value that the interval allows, on a fine grid, whether it would be material.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi.testclient import TestClient
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from app.__main__ import app
from app.privacy.evidence import (
    Actions,
    AuditHead,
    DatasetReport,
    Erased,
    Evidence,
    Match,
    NotMeasured,
    RequestFacts,
    SketchFacts,
    persons_part,
    sentence_of,
    unmeasured_datasets,
    verdict_of,
)
from app.privacy.page import MOST_ROWS, evidence_page
from app.privacy.proof import EvidenceError, read_evidence, sign_evidence, verify_evidence
from app.privacy.results import (
    DistributionResult,
    Material,
    NumberResult,
    any_material,
    is_retrained,
    material_of,
    result_of,
)
from app.privacy.signing_key import as_pem, fingerprint, load_signing_key, own_public_key, public_keys
from app.privacy.words import Verdict
from app.settings import Settings
from engine.errors import ConfigurationError
from engine.measure import Measurement
from engine.question import AnsweredBy, Distribution, Outcome, Prediction
from tests.app.privacy.conftest import asked, done

NOW = datetime(2026, 11, 25, 7, 30, 0, 123456, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
PUBLIC = KEY.public_key()
RUNNER = CliRunner()
SECRET_TEXT = "what zebulon wrote"


def prediction(
    measurement: Measurement,
    *,
    baseline: float = 2.5,
    change: float = 0.25,
    half: float = 0.125,
    estimator: AnsweredBy = "regression",
) -> Prediction:
    estimate = baseline + change
    return Prediction(
        measurement=measurement,
        baseline=baseline,
        estimate=estimate,
        change=change,
        standard_error=half / 2,
        interval=(estimate - half, estimate + half),
        below_resolution=False,
        degree=3,
        terms=(),
        curve=(),
        estimator=estimator,
        readout=None,
        average=None,
        missing_share=0.0,
    )


def distribution(changes: dict[str, float], *, half: float = 0.005, prompt: str = "ma") -> Distribution:
    baseline = 1 / len(changes)
    outcomes = tuple(
        Outcome(
            token=token,
            baseline=baseline,
            estimate=baseline + change,
            change=change,
            standard_error=half / 2,
            interval=(baseline + change - half, baseline + change + half),
            below_resolution=False,
        )
        for token, change in changes.items()
    )
    return Distribution(
        measurement=Measurement(kind="next_token", prompt=prompt),
        outcomes=outcomes,
        degree=3,
        estimator="regression",
        readout=None,
        average=None,
        missing_share=0.0,
    )


def loss(text: str) -> Measurement:
    return Measurement(kind="loss", text=text)


def filed(
    answer: Prediction | Distribution, *, threshold: float = 0.05, **of: Any
) -> NumberResult | DistributionResult:
    return result_of(answer, threshold_nats=threshold, threshold_probability=threshold, confidence=0.95, **of)


def report(results: Sequence[NumberResult | DistributionResult], dataset: str = "names", **of: Any) -> DatasetReport:
    sketch = SketchFacts(
        name="names",
        version=3,
        checksum="c" * 64,
        built_at=NOW - timedelta(days=40),
        parameters=4192,
        contains_erased=False,
    )
    return DatasetReport(dataset=dataset, report="default", sketch=sketch, results=tuple(results), **of)


def match(dataset: str = "names", *, units: int = 1, units_of: int = 100, successor_of: str | None = None) -> Match:
    return Match(
        dataset=dataset,
        fingerprint="f" * 64,
        units=units,
        documents=9,
        units_of=units_of,
        documents_of=1000,
        deletion_digest="d" * 64,
        successor_of=successor_of,
    )


def made(**changed: Any) -> Evidence:
    facts: dict[str, Any] = {
        "request": RequestFacts(
            id="6f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11",
            source="fides-eu",
            protocol="fides",
            caller_id="pri_7",
            regulation="gdpr",
            submitted_at=None,
            received_at=NOW - timedelta(minutes=2),
            due_at=NOW + timedelta(days=30),
            mode="predict",
            report="default",
            body_digest="b" * 64,
            identities={"email": 1, "phone": 2},
        ),
        "matches": [match()],
        "reports": [
            report(
                [
                    filed(prediction(loss("max"))),
                    filed(prediction(Measurement(kind="log_probability", prompt="m", completion="ax"), change=-0.01)),
                    filed(prediction(loss(SECRET_TEXT), change=0.0, half=0.01), own=1),
                    filed(distribution({"a": 0.1, "é": -0.1, "": 0.0})),
                ],
                not_measured=(NotMeasured(label="own document 2", reason="It is longer than the model's context."),),
            )
        ],
        "actions": Actions(erased=(Erased(what="units", count=1),), contains_erased=("names v3",)),
        "audit": AuditHead(length=18_234, head="a" * 64),
        "made_at": NOW,
        "software": "0.1.0",
    }
    return Evidence.make(**(facts | changed))


def changed(text: str, change: Callable[[dict[str, Any]], None], key: Ed25519PrivateKey | None = None) -> str:
    """The text with something else in it, signed again where there is a key: by somebody who lies."""
    members = json.loads(text)
    change(members)
    if key is None:
        return json.dumps(members)
    del members["signature"]
    return sign_evidence(Evidence.model_validate(members), key)


# ---- materiality


def slow_material(baseline: float, interval: tuple[float, float], retrained: float | None, threshold: float) -> str:
    """Of each value that may be true, on a fine grid of exact numbers, whether it would be material."""
    if retrained is not None:
        possible = [Fraction(retrained) - Fraction(baseline)]
    else:
        low, high = (Fraction(end) - Fraction(baseline) for end in interval)
        inside = [edge for edge in (Fraction(-threshold), Fraction(0), Fraction(threshold)) if low <= edge <= high]
        possible = [low, high, *inside, *(low + (high - low) * Fraction(step, 16) for step in range(17))]
    beyond = [abs(change) > Fraction(threshold) for change in possible]
    same_side = len({change > 0 for change in possible}) == 1
    if all(beyond):
        # an interval that goes round the threshold's band holds 0, which isn't beyond it
        assert same_side or threshold == 0
        return "yes" if same_side else "undecided"
    return "undecided" if any(beyond) else "no"


QUARTERS = st.integers(-40, 40).map(lambda number: number / 4)  # exact, so that ends do meet the threshold


@given(QUARTERS, QUARTERS, QUARTERS, st.none() | QUARTERS, QUARTERS.map(abs))
@example(1.0, 1.25, 1.5, None, 0.25)  # an end that is the threshold isn't beyond it
@example(1.0, 1.5, 1.75, None, 0.25)
@example(1.0, 0.75, 1.25, None, 0.25)
@example(1.0, 0.25, 1.75, None, 0.25)
@example(1.0, 0.25, 1.75, 1.25, 0.25)
@example(1.0, 1.0, 1.0, None, 0.0)
def test_materiality_is_that_of_the_slow_oracle(
    baseline: float, one: float, other: float, retrained: float | None, threshold: float
) -> None:
    interval = (min(one, other), max(one, other))
    expected = slow_material(baseline, interval, retrained, threshold)
    assert material_of(baseline, interval, retrained, threshold) == expected


MATERIAL: st.SearchStrategy[Material] = st.sampled_from(["yes", "no", "undecided"])
OF_MATERIAL: dict[Material, tuple[float, float]] = {"yes": (1.0, 0.25), "no": (0.0, 0.01), "undecided": (0.0, 1.0)}


def of(material: Material) -> NumberResult | DistributionResult:
    change, half = OF_MATERIAL[material]
    result = filed(prediction(loss("max"), change=change, half=half))
    assert result.material == material
    return result


@given(st.lists(st.tuples(st.booleans(), st.none() | st.lists(MATERIAL, max_size=3)), max_size=4))
def test_the_verdict_is_the_worst_that_was_measured_and_never_no_where_something_was_not(
    datasets: list[tuple[bool, list[Material] | None]],
) -> None:
    matches = [match(f"d{n}", units=5 if whole else 1, units_of=5) for n, (whole, _) in enumerate(datasets)]
    reports = [
        report([of(one) for one in found], f"d{n}") for n, (_, found) in enumerate(datasets) if found is not None
    ]
    expected: Verdict
    every = [material for _, found in datasets for material in found or []]
    if not datasets:
        expected = "no_match"
    elif not every:
        expected = "not_estimated"
    elif every.count("yes") > 0:
        expected = "material"
    elif every.count("no") == len(every) and all(found for _, found in datasets):
        expected = "not_material"
    else:
        expected = "undecided"
    assert verdict_of(matches, reports) == expected
    assert re.fullmatch(r"[A-Z][^.]*\.", sentence_of(matches, reports))


@pytest.mark.parametrize("measured", ["names", "names-2", "names-3"])
def test_what_a_successor_took_over_is_counted_once_and_measured_where_one_of_them_is(measured: str) -> None:
    matches = [
        match("names-3", successor_of="names-2"),
        match("names"),
        match("others"),
        match("names-2", successor_of="names"),
    ]
    reports = [report([of("no")], measured)]
    assert persons_part(matches) == (2, 18)
    assert unmeasured_datasets(matches, reports) == ["others"]
    assert verdict_of(matches, reports) == "undecided"
    assert verdict_of([*matches[:2], matches[3]], reports) == "not_material"
    text = sign_evidence(made(matches=[*matches[:2], matches[3]], reports=reports), KEY)
    assert f"are those in {measured}: one succeeds the other" in evidence_page(text)


@given(st.lists(MATERIAL, max_size=5))
def test_a_distribution_is_as_material_as_the_worst_of_its_tokens(parts: list[Material]) -> None:
    order = ["no", "undecided", "yes"]
    assert order.index(any_material(parts)) == max((order.index(part) for part in parts), default=0)


@pytest.mark.parametrize(
    ("values", "basis"),
    [(None, "By estimate,"), ([2.5, 2.5], "By retraining,")],
)
def test_the_sentence_says_whether_it_rests_on_retraining(values: list[float] | None, basis: str) -> None:
    one = report([of("undecided"), of("undecided")])
    assert sentence_of([match()], [one if values is None else one.with_retrained(values)]).startswith(basis)


def test_a_retrained_value_decides_against_the_estimate() -> None:
    verified = report([of("yes"), of("no")]).with_retrained([2.5, 3.5])
    assert [result.material for result in verified.results] == ["no", "yes"]
    assert verified.verification == "finished"
    assert all(map(is_retrained, verified.results))


def test_what_was_answered_by_a_retrained_model_is_called_retrained() -> None:
    result = filed(prediction(loss("max"), change=0.25, half=0.0, estimator="retrained"))
    assert isinstance(result, NumberResult)
    assert (result.retrained, result.material) == (2.75, "yes")


def test_a_distribution_says_how_much_probability_moves_and_is_judged_by_each_token() -> None:
    result = filed(distribution({"a": 0.125, "b": -0.0625, "": -0.0625}), threshold=0.1)
    assert isinstance(result, DistributionResult)
    assert result.total_variation == pytest.approx(0.125)
    assert [token.material for token in result.tokens] == ["yes", "no", "no"]
    assert result.material == "yes"
    third = 1 / 3
    verified = report([result]).with_retrained([[third, third + 0.25, third - 0.25]]).results[0]
    assert isinstance(verified, DistributionResult)
    assert verified.retrained_total_variation == pytest.approx(0.25)
    assert [token.material for token in verified.tokens] == ["no", "yes", "yes"]


def test_retrained_values_of_another_number_or_form_are_refused() -> None:
    one = report([of("no")])
    for values in ([], [2.5, 2.5], [[2.5]]):
        with pytest.raises(ValueError, match=r"shorter|longer|is a number"):
            one.with_retrained(values)
    with pytest.raises(ValueError, match="are a list"):
        report([filed(distribution({"a": 0.1, "": -0.1}))]).with_retrained([2.5])


def test_a_draft_survives_json_whole() -> None:
    evidence = made()
    for part in (*evidence.matches, *evidence.reports, evidence.request):
        assert type(part).model_validate(json.loads(json.dumps(part.model_dump(mode="json")))) == part


# ---- what is in it


def test_no_text_of_the_person_is_in_it() -> None:
    results = [
        filed(prediction(loss(SECRET_TEXT)), own=1),
        filed(prediction(loss(SECRET_TEXT)), withheld=True),
        filed(
            prediction(Measurement(kind="log_probability", prompt=SECRET_TEXT, completion=SECRET_TEXT)), withheld=True
        ),
        filed(distribution({"a": 0.1, "": -0.1}, prompt=SECRET_TEXT), withheld=True),
    ]
    text = sign_evidence(made(reports=[report(results)]), KEY)
    for form in (text, evidence_page(text)):
        assert "zebulon" not in form
        assert "own document 1" in form


def test_measurements_that_were_configured_are_said_exactly() -> None:
    results = json.loads(sign_evidence(made(), KEY))["reports"][0]["results"]
    assert [(one["kind"], one["unit"], one["label"]) for one in results] == [
        ("loss", "nats per token", "max"),
        ("log_probability", "nats", "ax after m"),
        ("loss", "nats per token", "own document 1"),
        ("next_token", "probability", "next character after ma"),
    ]
    assert (results[0]["text"], results[1]["prompt"], results[1]["completion"]) == ("max", "m", "ax")
    assert (results[2]["text"], results[2]["own_document"]) == (None, 1)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValidationError):
        filed(prediction(loss("max"), baseline=float("nan")))


def test_a_whole_dataset_has_no_counterfactual_and_both_forms_say_so() -> None:
    text = sign_evidence(made(matches=[match(units=100)], reports=[]), KEY)
    found = read_evidence(text)
    assert (found.verdict, found.outcome, found.matches[0].everything) == ("not_estimated", "answered", True)
    assert "without them there is no model to compare" in found.sentence
    assert "a model without them doesn" in evidence_page(text)


def test_nobody_found_is_an_answer() -> None:
    found = read_evidence(sign_evidence(made(matches=[], reports=[], actions=Actions()), KEY))
    assert (found.verdict, found.outcome) == ("no_match", "no_match")


# ---- the signature


def openssl_accepts(folder: Path, content: bytes, signature: bytes) -> bool:
    (folder / "key.pem").write_text(as_pem(PUBLIC))
    (folder / "content").write_bytes(content)
    (folder / "signature").write_bytes(signature)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin", "-in", "content"]
    ran = subprocess.run([*command, "-sigfile", "signature"], cwd=folder, capture_output=True, check=False)
    return ran.returncode == 0


def test_openssl_verifies_it_over_json_that_another_program_wrote(tmp_path: Path) -> None:
    whole = made(reports=[])  # without a fraction Python's own JSON is canonical
    members = json.loads(sign_evidence(whole, KEY))
    signature = base64.b64decode(members.pop("signature")["value"])
    content = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert openssl_accepts(tmp_path, content, signature)
    assert not openssl_accepts(tmp_path, content.replace(b"pri_7", b"pri_8"), signature)


_CANONICAL_IN_JAVASCRIPT = """
const canonical = v => Array.isArray(v) ? '[' + v.map(canonical).join(',') + ']'
  : v && typeof v === 'object'
    ? '{' + Object.keys(v).sort().map(k => JSON.stringify(k) + ':' + canonical(v[k])).join(',') + '}'
  : JSON.stringify(v);
const members = JSON.parse(require('fs').readFileSync(0, 'utf8'));
delete members.signature;
process.stdout.write(canonical(members));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node isn't installed")
@settings(max_examples=10)  # of a process and many numbers each
@given(st.lists(st.floats(-1e300, 1e300).filter(lambda n: n == 0 or abs(n) > 1e-290), min_size=60, max_size=120))
def test_javascript_makes_the_same_canonical_json_of_all_numbers(numbers: list[float]) -> None:
    results = [filed(prediction(loss("é\u2028\x1f"), baseline=0.0, change=number, half=0.0)) for number in numbers]
    text = sign_evidence(made(reports=[report(results)]), KEY)
    node = shutil.which("node")
    assert node is not None
    content = subprocess.run(
        [node, "-e", _CANONICAL_IN_JAVASCRIPT], input=text.encode(), capture_output=True, check=True
    ).stdout
    PUBLIC.verify(base64.b64decode(json.loads(text)["signature"]["value"]), content)  # raises where it isn't


def test_it_is_proven_by_its_key_only() -> None:
    text = sign_evidence(made(), KEY)
    own, several = verify_evidence(text, [PUBLIC]), verify_evidence(text, [OTHER_KEY.public_key(), PUBLIC])
    assert (own.intact, own.trusted, own.exit_code, several.exit_code) == (True, True, 0, 0)
    foreign = verify_evidence(text, [OTHER_KEY.public_key()])
    assert (foreign.intact, foreign.trusted, foreign.exit_code) == (True, False, 1)
    alone = verify_evidence(text)
    assert (alone.intact, alone.trusted, alone.exit_code) == (True, None, 2)
    assert own.key_fingerprint == foreign.key_fingerprint == alone.key_fingerprint == fingerprint(PUBLIC)


def test_how_it_is_indented_or_ordered_does_not_matter() -> None:
    members = json.loads(sign_evidence(made(), KEY))
    other = json.dumps(dict(reversed(members.items())), indent=2, ensure_ascii=True)
    assert verify_evidence(other, [PUBLIC]).exit_code == 0


def test_each_changed_byte_is_found() -> None:
    """Each byte, a bit flipped: what is left to pass says the same thing (an "e" of an exponent as "E")."""
    text = sign_evidence(made(), KEY).encode()
    meant = json.loads(text)
    for place in range(len(text)):
        for bit in (0x01, 0x20):
            other = bytearray(text)
            other[place] ^= bit
            try:
                tampered = other.decode()
            except UnicodeDecodeError:
                continue
            if verify_evidence(tampered, [PUBLIC]).exit_code == 0:
                assert json.loads(tampered) == meant, (place, tampered[max(0, place - 20) : place + 20])


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [leaf for name, part in items for leaf in leaves(part, (*path, name))] or [path]


def other_value(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case list() | dict():
            return None
        case _:
            return "x"


def test_each_changed_added_and_missing_member_is_found() -> None:
    text = sign_evidence(made(), KEY)
    paths = leaves(json.loads(text))
    assert len(paths) > 120

    def at(members: dict[str, Any], path: tuple[Any, ...]) -> Any:
        for name in path[:-1]:
            members = members[name]
        return members

    for path in paths:

        def replace(members: dict[str, Any], path: tuple[Any, ...] = path) -> None:
            at(members, path)[path[-1]] = other_value(at(members, path)[path[-1]])

        def remove(members: dict[str, Any], path: tuple[Any, ...] = path) -> None:
            del at(members, path)[path[-1]]

        def add(members: dict[str, Any], path: tuple[Any, ...] = path) -> None:
            holder = at(members, path)
            holder.append(holder[0]) if isinstance(holder, list) else holder.update(further=1)

        for change in (replace, remove, add):
            assert verify_evidence(changed(text, change), [PUBLIC]).exit_code == 1, (path, change.__name__)


@pytest.mark.parametrize(
    "broken",
    [
        lambda text: text.replace('"format_version":1', '"format_version":1,"format_version":1'),
        lambda text: text.replace('"format_version":1', '"format_version":2'),
        lambda text: text.replace('"length":18234', '"length":NaN'),
        lambda text: text.replace('"length":18234', '"length":1e999'),
        lambda text: text.replace('"length":18234', '"length":' + "9" * 5_000),
        lambda text: text.replace("pri_7", "\\ud800"),
        lambda text: text.replace('Z"', '+00:00"'),
        lambda text: text[:-1],
        lambda text: text + "{}",
        lambda text: "[" * 100_000,
        lambda text: "null",
        lambda text: "",
    ],
)
def test_what_is_no_evidence_is_refused_in_a_sentence(broken: Callable[[str], str]) -> None:
    tampered = broken(sign_evidence(made(), KEY))
    verdict = verify_evidence(tampered, [PUBLIC])
    assert verdict.exit_code == 1
    assert len(verdict.faults) == 1
    assert verdict.faults[0].startswith("It doesn't have the form of neverseen-evidence")
    with pytest.raises(EvidenceError):
        read_evidence(tampered)


def test_a_signature_in_another_base64_or_of_another_length_is_refused() -> None:
    text = sign_evidence(made(), KEY)
    value = json.loads(text)["signature"]["value"]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    loose = value[:-3] + letters[letters.index(value[-3]) + 1] + "=="  # decodes to the same 64 bytes
    assert base64.b64decode(loose) == base64.b64decode(value)
    for name, other in (("value", loose), ("value", ""), ("value", "é"), ("public_key", "AAAA")):
        members = json.loads(text)
        members["signature"][name] = other
        tampered = json.dumps(members)
        assert verify_evidence(tampered, [PUBLIC]).faults, other


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        (lambda m: m["reports"][0]["results"][0].update(change=0.0), "the change isn't estimate - baseline"),
        (lambda m: m["reports"][0]["results"][0].update(material="no"), "is material doesn't follow from its values"),
        (lambda m: m["reports"][0]["results"][0].update(interval=[3.0, 2.0]), "the interval's ends"),
        (lambda m: m["reports"][0]["results"][3].update(material="no"), "doesn't follow from its tokens"),
        (lambda m: m["reports"][0]["results"][3].update(total_variation=0.0), "how much probability moves"),
        (lambda m: m["reports"][0].update(verification="finished"), "lacks retrained values"),
        (lambda m: m["reports"][0].update(dataset="others"), "in which nobody was found"),
        (lambda m: m["matches"][0].update(everything=True), "contradict each other"),
        (lambda m: m["matches"][0].update(documents=1001), "contradict each other"),
        (lambda m: m.update(verdict="not_material"), "The verdict doesn't follow"),
        (lambda m: m.update(outcome="no_match"), "The outcome doesn't follow"),
    ],
)
def test_a_signed_contradiction_is_found(lie: Callable[[dict[str, Any]], None], found: str) -> None:
    verdict = verify_evidence(changed(sign_evidence(made(), KEY), lie, KEY), [PUBLIC])
    assert verdict.exit_code == 1
    assert any(found in fault for fault in verdict.faults)
    assert not any("what was signed" in fault for fault in verdict.faults)


# ---- the installation's key


def test_the_key_is_made_once_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    assert own_public_key(settings) is None
    keys: list[str] = []
    threads = [
        threading.Thread(target=lambda: keys.append(as_pem(load_signing_key(settings).public_key()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert [path.name for path in settings.data_dir.iterdir()] == ["signing-key.pem"]
    assert stat.S_IMODE(settings.signing_key_file.stat().st_mode) == 0o600
    public = own_public_key(settings)
    assert public is not None
    assert as_pem(public) == keys[0]


def test_a_key_that_openssl_made_is_taken_and_has_the_fingerprint_that_openssl_tells(tmp_path: Path) -> None:
    file = tmp_path / "mine.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", file], check=True, capture_output=True)
    settings = Settings(data_dir=tmp_path, signing_key_file=file)
    public = load_signing_key(settings).public_key()
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=as_pem(public).encode(), check=True, capture_output=True
    ).stdout
    assert fingerprint(public) == hashlib.sha256(der).hexdigest()


def test_a_key_file_that_is_set_and_missing_is_not_made(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, signing_key_file=tmp_path / "mounted.pem")
    with pytest.raises(ConfigurationError, match="NEVERSEEN_SIGNING_KEY_FILE"):
        load_signing_key(settings)
    assert not list(tmp_path.iterdir())


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    elliptic = generate_private_key(SECP256R1())
    settings = Settings(data_dir=tmp_path)
    private = elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content in (private, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        settings.signing_key_file.write_bytes(content)
        with pytest.raises(ConfigurationError, match="no private key of Ed25519"):
            load_signing_key(settings)
    with pytest.raises(ConfigurationError, match="no public key"):
        public_keys(private)
    assert [fingerprint(key) for key in public_keys((as_pem(PUBLIC) + as_pem(OTHER_KEY.public_key())).encode())] == [
        fingerprint(PUBLIC),
        fingerprint(OTHER_KEY.public_key()),
    ]


# ---- commands


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Evidence, in a data directory without a key or a catalog."""
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(tmp_path / "data"))
    path = tmp_path / "evidence.json"
    path.write_text(sign_evidence(made(), KEY))
    return path


def ran(*words: str | Path) -> tuple[int, str]:
    result = RUNNER.invoke(app, ["privacy", *map(str, words)])
    return result.exit_code, " ".join(result.output.split())


def test_verify_needs_no_catalog_and_makes_nothing(file: Path) -> None:
    code, said = ran("verify", file)
    assert code == 2
    assert fingerprint(PUBLIC) in said
    assert "Whose key that is isn't known" in said
    assert not (file.parent / "data").exists()


def test_verify_proves_by_a_key_that_is_given(file: Path) -> None:
    for name, key in (("right", KEY), ("wrong", OTHER_KEY)):
        (file.parent / f"{name}.pem").write_text(as_pem(key.public_key()))
    code, said = ran("verify", file, "--key", file.parent / "right.pem")
    assert (code, "Intact, and signed by the key given" in said) == (0, True)
    code, said = ran("verify", file, "--key", file.parent / "wrong.pem")
    assert (code, "Intact, but not signed by the key given" in said) == (1, True)
    code, _ = ran("verify", file, "--key", file.parent / "wrong.pem", "--key", file.parent / "right.pem")
    assert code == 0


def test_verify_proves_by_the_installations_own_key_and_knows_a_foreign_one(file: Path) -> None:
    own = load_signing_key(Settings())
    code, said = ran("verify", file)
    assert code == 2
    assert "which is not the key of this installation" in said
    file.write_text(sign_evidence(made(), own))
    code, said = ran("verify", file)
    assert (code, "signed by this installation" in said) == (0, True)
    assert "By estimate, without this person's 9 documents" in said


def test_verify_says_what_is_wrong(file: Path) -> None:
    file.write_text(file.read_text().replace("pri_7", "pri_8"))
    code, said = ran("verify", file)
    assert (code, "It isn't what was signed" in said) == (1, True)
    file.write_bytes(b"\xff")
    code, said = ran("verify", file)
    assert (code, "Not intact" in said) == (1, True)


def test_key_prints_what_verify_takes(file: Path) -> None:
    result = RUNNER.invoke(app, ["privacy", "key"])
    assert result.exit_code == 0
    (file.parent / "key.pem").write_text(result.stdout)
    file.write_text(sign_evidence(made(), load_signing_key(Settings())))
    assert ran("verify", file, "--key", file.parent / "key.pem")[0] == 0
    [public] = public_keys(result.stdout.encode())
    assert fingerprint(public) in result.stderr


# ---- the sheet


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "</td><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)> {{ 7*7 }} \u202egnp\x00"


def crowded() -> Evidence:
    """As much as may be in it, all of it hostile."""
    results = [filed(prediction(loss(HOSTILE * 4 + str(number)), half=number / 50)) for number in range(64)]
    other = [filed(distribution({"<": 0.1, "&": -0.1, "": 0.0}, prompt=HOSTILE))]
    names = [HOSTILE, "d" * 64, "e", "f", "g"]
    return made(
        request=made().request.model_copy(
            update={"caller_id": HOSTILE * 2, "source": HOSTILE, "regulation": HOSTILE, "identities": {HOSTILE: 3}}
        ),
        matches=[match(names[0]), match(names[1]), match("e", units=5, units_of=5), match("f"), match("g")],
        reports=[
            report(
                results, names[0], not_measured=tuple(NotMeasured(label=HOSTILE, reason=HOSTILE * 9) for _ in range(9))
            ).with_failed_verification(HOSTILE * 9),
            report(other, names[1]),
            report([], "f"),
        ],
        actions=Actions(
            erased=(Erased(what=HOSTILE, count=1),) * 9, contains_erased=(HOSTILE,) * 9, left=(HOSTILE,) * 9
        ),
    )


def test_the_sheet_escapes_what_is_hostile_and_loads_and_runs_nothing() -> None:
    html = evidence_page(sign_evidence(crowded(), KEY))
    page = Page(html)
    assert "alert(1)" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "\u202e" not in html
    assert "\\u202e" in page.text
    assert not {"script", "img", "link", "iframe", "object", "embed", "form", "a", "base"} & set(page.elements)
    assert not {"src", "href", "srcset", "data", "action", "style"} & {name for name, _ in page.attributes}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'; style-src 'unsafe-inline'" in html


def test_the_sheet_shows_what_matters_most_and_says_what_it_leaves_out() -> None:
    results = [of("no")] * 30 + [of("undecided")] * 3 + [of("yes")] * 2
    page = Page(evidence_page(sign_evidence(made(reports=[report(results)]), KEY)))
    cells = [value for name, value in page.attributes if name == "class" and value in {"yes", "no", "undecided"}]
    assert cells == ["yes"] * 2 + ["undecided"] * 3 + ["no"] * (MOST_ROWS - 5)
    assert "15 more, none of which matters more than these, are in the file." in page.text


def test_the_sheet_says_what_the_file_says() -> None:
    text = sign_evidence(made(), KEY)
    evidence, page = read_evidence(text), Page(evidence_page(text))
    said = " ".join(page.text.split())
    for expected in (
        evidence.sentence,
        evidence.request.id,
        "pri_7",
        "1 email and 2 phones",
        "names: 1 unit of 100, 9 documents of 1,000",
        "names version 3",
        "4,192 parameters",
        evidence.reports[0].sketch.checksum,
        evidence.signature.key_fingerprint,
        evidence.signature.value,
        evidence.audit.head,
        "names v3",
        "Not measured: own document 2",
        *evidence.method,
        *evidence.limits,
    ):
        assert expected in said
    assert page.elements.count("svg") == 4


def test_each_row_is_drawn_within_its_plot_and_absurd_intervals_squeeze_no_other() -> None:
    results = [filed(prediction(loss("a"), change=0.1, half=0.05))] * 5 + [filed(prediction(loss("b"), half=1e6))]
    html = evidence_page(sign_evidence(made(reports=[report(results)]), KEY))
    lines = re.findall(r'<line x1="([-\d.]+)" x2="([-\d.]+)" y1="7"', html)
    assert len(lines) == 6
    assert all(0 <= float(low) <= float(high) <= 132 for low, high in lines)
    assert sum(float(high) - float(low) > 20 for low, high in lines) == 6


def test_the_service_lets_a_browser_style_the_sheet_and_nothing_more(desk: TestClient) -> None:
    request = desk.post("/erasure-requests", json=asked("max@example.org")).json()["id"]
    assert done(desk, request)["state"] == "completed"
    answer = desk.get(f"/erasure-requests/{request}/evidence.html")
    assert verify_evidence(desk.get(f"/erasure-requests/{request}/evidence").text).intact
    assert answer.status_code == 200
    policies = answer.headers.get_list("content-security-policy", split_commas=True)
    for policy in policies:  # a browser holds to all of them
        assert "style-src 'unsafe-inline'" in policy
        assert "default-src 'none'" in policy
    assert any("frame-ancestors 'none'" in policy for policy in policies)


def test_the_template_is_packaged() -> None:
    configuration = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"app.privacy" = ["templates/*.html"]' in configuration


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium isn't installed")
@pytest.mark.parametrize("most", ["twenty", "crowded", "nobody"])
def test_the_sheet_prints_on_one_page(tmp_path: Path, most: str) -> None:
    evidence = {
        "twenty": made(reports=[report([of("undecided")] * 20)]),
        "crowded": crowded(),
        "nobody": made(matches=[], reports=[], actions=Actions()),
    }[most]
    (tmp_path / "page.html").write_text(evidence_page(sign_evidence(evidence, KEY)), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", "--print-to-pdf=page.pdf", "page.html"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes())) == 1
