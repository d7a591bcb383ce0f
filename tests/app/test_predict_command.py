"""``neverseen predict``, `attributions` and `samples`: the same from the local catalog and from a service."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app import catalog
from app.__main__ import app
from app.client import Neverseen, loss
from app.commands import sets
from app.commands.asking import Asked
from app.commands.sets import read_sets
from app.db import Database, transaction
from app.errors import LimitError, NotFoundError
from app.settings import Settings
from engine.configuration import FEWEST_ANCHORS
from engine.errors import DeletionSetError, UnknownCharacterError
from engine.measure import Measurement
from engine.question import Question
from engine.sketch import build
from engine.store import Artifact
from tests.app.conftest import NAMES, register
from tests.app.servers import LINE, Said, refused, saying, served

pytestmark = pytest.mark.parametrize("backend", ["sqlite"])

QUESTION = ("predict", "tiny", "--subset", "has-x", "--text", "max")
BY_UNIT = "set,unit\na,0\nb,1\na,2\n"


@pytest.fixture(autouse=True)
def _local_catalog(settings: Settings, sketch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands find the catalog, and print lines that aren't broken."""
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def url(settings: Settings, sketch: str) -> Iterator[str]:
    with served(settings) as url:
        yield url


def neverseen(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answered(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def refusal(result: Result) -> str:
    """What is said in one line with exit code 2; an error that the command line's start says so."""
    if isinstance(result.exception, DeletionSetError | NotFoundError):
        return str(result.exception)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.replace("│", " ").split())


def lines(said: str) -> list[str]:
    """The rows of a table that was printed."""
    return [line for line in said.splitlines() if line.startswith("│")]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# One question


@pytest.mark.parametrize(
    "question",
    [
        QUESTION,
        (*QUESTION, "--completion", "m:ax", "--next-token", "ma", "--downweight", "0.5", "--downweight", "1"),
        ("predict", "tiny", "--document", "0", "--document", "3", "--text", "max", "--degree", "1", "--version", "1"),
        ("predict", "tiny", "--unit", "5", "--text", "max", "--confidence", "0.9", "--average", "median_of_means"),
        ("attributions", "tiny", "--text", "max", "--top", "3"),
        ("attributions", "tiny", "--completion", "m:ax", "--top", "2", "--confidence", "0.8"),
    ],
)
def test_a_service_is_asked_as_the_catalog_is(url: str, question: Sequence[str]) -> None:
    assert answered(neverseen(*question, "--url", url)) == answered(neverseen(*question))


def test_texts_of_a_sketch_without_axes_are_refused_by_both(url: str) -> None:
    question = ("samples", "tiny", "--subset", "has-x", "--count", "2")
    assert str(neverseen(*question).exception) in refusal(neverseen(*question, "--url", url))


def test_a_service_draws_the_texts_that_the_catalog_does(
    settings: Settings, database: Database, artifact: Artifact, tmp_path: Path, url: str
) -> None:
    wanted = replace(artifact.manifest.configuration, axes=True, directions=0, anchors=FEWEST_ANCHORS)
    with_axes = build(NAMES, wanted, tmp_path / "axes")
    with transaction(database) as session:
        register(session, settings, catalog.get_dataset(session, "names"), with_axes, sketch="axes")
    question = ("samples", "axes", "--subset", "has-x", "--count", "3", "--seed", "7", "--prompt", "m")
    said = answered(neverseen(*question, "--url", url))
    assert "axes v1, and without" in said
    assert said == answered(neverseen(*question))


def test_a_service_verifies(url: str) -> None:
    said = answered(neverseen(*QUESTION, "--verify", "--url", url))
    assert "in interval" in said
    local = answered(neverseen(*QUESTION, "--verify"))  # by the model that the service retrained
    [of_service, here] = ([cell.strip() for cell in line.split("│")] for line in (*lines(said), *lines(local)))
    assert of_service[1] == here[1] == "max"
    assert of_service[8] == here[8] == here[4]  # retrained, and the estimate afterwards
    assert (of_service[9][0], here[9], here[10]) in {("+", "+0.0000", "yes"), ("-", "+0.0000", "yes")}


def test_a_key_is_taken_from_the_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(settings) as url, Neverseen(url) as service:
        key = service.create_key("asks", scopes=["predict"]).key
    with served(settings) as url:
        assert "A key is needed" in refusal(neverseen(*QUESTION, "--url", url))
        answered(neverseen(*QUESTION, "--url", url, "--key", key))
        monkeypatch.setenv("NEVERSEEN_KEY", key)
        answered(neverseen(*QUESTION, "--url", url))
        assert "not shown to this key" in answered(neverseen("attributions", "tiny", "--text", "max", "--url", url))
    answered(neverseen(*QUESTION))  # the catalog needs none


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (("predict", "nothing", "--subset", "has-x", "--text", "max"), "There is no sketch 'nothing'"),
        (("predict", "Names!", "--subset", "has-x", "--text", "max"), "sketch: String should match"),
        (("predict", "tiny", "--subset", "has-x", "--text", "ö"), "isn't in the model's vocabulary"),
        (("predict", "tiny", "--text", "max"), "exactly one of --document, --unit, --subset"),
        (("attributions", "tiny", "--text", "max", "--top", "0"), "top: Input should be greater"),
        (("samples", "tiny", "--unit", "nobody"), "There is no unit 'nobody'"),
    ],
)
def test_what_a_service_refuses_is_one_line(url: str, question: Sequence[str], message: str) -> None:
    assert message in refusal(neverseen(*question, "--url", url))


def test_a_service_that_isnt_there_is_one_line() -> None:
    with saying(Said()) as tiny:
        pass
    assert "can't be reached" in refusal(neverseen(*QUESTION, "--url", tiny.url))
    assert "url: give the service's address" in refusal(neverseen(*QUESTION, "--url", "nowhere"))


# Files of deletion sets


@pytest.mark.parametrize(
    ("name", "content", "deletes"),
    [
        ("sets.csv", BY_UNIT, {"a": {"units": ["0", "2"]}, "b": {"units": ["1"]}}),
        ("sets.csv", "\ufeffnote,document,set\nx, 3 ,a\ny,0,a\n", {"a": {"documents": [3, 0]}}),
        (
            "sets.CSV",
            'set,subset\r\n"a,b",has-x\r\n\r\nc,has-z\r\n',
            {"a,b": {"subset": "has-x"}, "c": {"subset": "has-z"}},
        ),
        (
            "sets.jsonl",
            '{"id": "a", "delete": {"units": ["0"]}}\n\n{"delete": {"documents": [1]}}\n',
            {"a": {"units": ["0"]}, "2": {"documents": [1]}},
        ),
    ],
)
def test_sets_are_read_in_the_order_of_their_first_rows(
    tmp_path: Path, name: str, content: str, deletes: dict[str, Any]
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    items = read_sets(tmp_path / name)
    assert [item.id for item in items] == list(deletes)
    assert [item.delete.model_dump(exclude_none=True) for item in items] == list(deletes.values())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sets.txt", b"", "sets.txt must end with .csv or .jsonl"),
        ("sets.csv", b"", "Line 1: The columns 'set' and one of"),
        ("sets.csv", b"set,unit\n", "sets.csv holds no deletion set."),
        ("sets.jsonl", b"\n", "sets.jsonl holds no deletion set."),
        (
            "sets.csv",
            b"set,name\na,0\n",
            "Line 1: The columns 'set' and one of 'document', 'unit', 'subset' are needed",
        ),
        ("sets.csv", b"set,unit,document\na,0,0\n", "Line 1: The columns"),
        ("sets.csv", b"set,unit\na,0\nb\n", "Line 3: The row doesn't have the header's 2 columns."),
        ("sets.csv", b"set,unit\na,0\n,1\n", "Line 3: Nothing is written in the column 'set'."),
        ("sets.csv", b"set,unit\na,0\nb, \n", "Line 3: Nothing is written in the column 'unit'."),
        ("sets.csv", b"set,document\na,0\na,-1\n", "Line 3: A document is a whole number from 0."),
        ("sets.csv", b"set,document\na," + b"9" * 5000, "Line 2: A document is a whole number from 0."),
        ("sets.csv", b"set,subset\na,has-x\nb,has-z\na,has-z\n", "Line 4: This set deletes a subset already"),
        ("sets.csv", b"set,subset\na,has-x\nb,Has Z\n", "Line 3: delete.subset: String should match pattern"),
        ("sets.csv", b"set,unit\nb,1\n" + b"a" * 201 + b",0\n", "Line 3: id: String should have at most 200"),
        ("sets.csv", b'set,unit\na,0\nb,"1\n', "Line 3: Not CSV: unexpected end of data."),
        ("sets.csv", b"set,unit\na,0\nb,\xff\n", "Line 3: Not UTF-8; save the file as UTF-8."),
        ("sets.jsonl", b'{"id": "a", "delete": {"units": ["0"]}}\n{"id": }\n', "Line 2: Not JSON: Expecting value."),
        ("sets.jsonl", b"[" * 100_000, "Line 1: Not JSON: too deeply nested"),
        ("sets.jsonl", b"3\n", 'Line 1: An object {"id": '),
        ("sets.jsonl", b'{"id": "a"}\n', "Line 1: delete: Field required."),
        ("sets.jsonl", b'{"id": "a", "delete": {}}\n', "Line 1: delete: give exactly one of documents, units, subset."),
        ("sets.jsonl", b'{"id": "\\ud800", "delete": {"units": ["0"]}}\n', "Line 1: "),
        ("sets.jsonl", b'{"id": "a", "delete": {"units": ["0"]}}\n' * 2, "Line 2: A line before has the same id."),
    ],
)
def test_a_file_that_holds_something_else_is_told_where(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused = neverseen("predict", "tiny", "--text", "max", "--file", tmp_path / name)
    assert isinstance(refused.exception, DeletionSetError)
    assert message in str(refused.exception)
    assert "\n" not in str(refused.exception)


def test_a_file_that_isnt_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeletionSetError, match=r"sets\.csv can't be read: No such file"):
        read_sets(tmp_path / "sets.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--file", "sets.csv", "--unit", "0"), "--file goes without --document, --unit, --subset and --verify"),
        (("--file", "sets.csv", "--verify"), "--file goes without"),
        (("--file", "sets.csv", "--downweight", "1", "--downweight", "0.5"), "takes one --downweight"),
        (("--file", "sets.csv", "--output", "answers.txt"), "another file, that ends with .csv or .jsonl"),
        (("--file", "sets.csv", "--output", "sets.csv"), "another file"),
        (("--unit", "0", "--output", "answers.csv"), "--output keeps the answers to --file"),
    ],
)
def test_options_that_dont_go_together_are_refused(options: Sequence[str], message: str) -> None:
    assert message in refusal(neverseen("predict", "tiny", "--text", "max", *options))


def test_each_set_is_answered_as_if_it_were_asked_alone(tmp_path: Path, url: str) -> None:
    (tmp_path / "sets.csv").write_text("set,subset\n=a,has-x\n-b,nothing\nc,has-x\n")
    question = ("predict", "tiny", "--text", "max", "--completion", "m:ax", "--file", tmp_path / "sets.csv")
    with Neverseen(url) as service:
        alone = service.predict("tiny", subset="has-x", measurements=[loss("max")]).predictions[0]
    for where in ((), ("--url", url)):
        output = tmp_path / f"answers{len(where)}.csv"
        said = neverseen(*question, "--output", output, *where)
        assert said.exit_code == 1
        assert "tiny v1 without each of 3 sets" in said.output
        assert "1 of 3 sets couldn't be answered." in said.output
        first, completion, refused, *last = rows(output)
        columns = "set,measured,baseline,estimate,standard_error,low,high,below_resolution,estimator,problem"
        assert ",".join(first) == columns
        assert (first["set"], first["measured"], first["problem"]) == ("'=a", "max", "")
        assert float(first["estimate"]) == alone.estimate  # type: ignore[union-attr]
        assert first["estimator"] == alone.estimator
        assert first["below_resolution"] in {"true", "false"}
        assert (completion["measured"], completion["estimate"][0]) == ("m…ax", "-")  # a number is no formula
        assert (refused["set"], refused["estimate"]) == ("'-b", "")
        assert refused["problem"].startswith("There is no subset 'nothing' of the dataset 'names'. Known: has-x.")
        assert [row["set"] for row in last] == ["c", "c"]
        assert not list(tmp_path.glob("*.partial"))
    assert (tmp_path / "answers0.csv").read_bytes() == (tmp_path / "answers2.csv").read_bytes()


def test_answers_are_kept_as_the_lines_of_the_service(tmp_path: Path, url: str) -> None:
    (tmp_path / "sets.jsonl").write_text('{"delete": {"units": ["0"]}}\n{"id": "x", "delete": {"documents": [0, 0]}}\n')
    question = ("predict", "tiny", "--text", "max", "--next-token", "m", "--file", tmp_path / "sets.jsonl")
    for where in ((), ("--url", url)):
        said = neverseen(*question, "--output", tmp_path / f"answers{len(where)}.jsonl", *where)
        assert (said.exit_code, "named more than once" in said.output) == (1, True)
    [here, there] = ((tmp_path / f"answers{i}.jsonl").read_text() for i in (0, 2))
    assert here == there
    first, second = map(json.loads, here.splitlines())
    assert (first["index"], first["id"], first["version"], first["problem"]) == (0, "1", 1, None)
    assert [sorted(one["measurement"]) for one in first["predictions"]] == [["kind", "text"], ["kind", "prompt"]]
    assert (second["index"], second["id"], second["problem"]["status"]) == (1, "x", 400)


def test_a_distribution_has_a_row_for_each_outcome(tmp_path: Path) -> None:
    (tmp_path / "sets.csv").write_text(BY_UNIT)
    answered(
        neverseen(
            "predict", "tiny", "--next-token", "", "--file", tmp_path / "sets.csv", "--output", tmp_path / "a.csv"
        )
    )
    of_a = [row for row in rows(tmp_path / "a.csv") if row["set"] == "a"]
    assert "next after the start: (end)" in {row["measured"] for row in of_a}
    assert sum(float(row["estimate"]) for row in of_a) == pytest.approx(1)


def test_the_terminal_shows_some_rows_and_the_file_has_all(tmp_path: Path) -> None:
    (tmp_path / "sets.csv").write_text("set,document\n" + "".join(f"s{i},{i}\n" for i in range(25)))
    question = ("predict", "tiny", "--text", "max", "--file", tmp_path / "sets.csv")
    assert "and 5 more; --output FILE keeps all." in answered(neverseen(*question))
    said = answered(neverseen(*question, "--output", tmp_path / "answers.csv"))
    assert "and 5 more; answers.csv has all." in said
    assert "s19" in said
    assert "s20" not in said
    assert [row["set"] for row in rows(tmp_path / "answers.csv")] == [f"s{i}" for i in range(25)]


def test_what_is_wrong_with_the_measurement_refuses_all(tmp_path: Path, url: str) -> None:
    (tmp_path / "sets.csv").write_text(BY_UNIT)
    question = ("predict", "tiny", "--text", "ö", "--file", tmp_path / "sets.csv", "--output", tmp_path / "a.csv")
    assert isinstance(neverseen(*question).exception, UnknownCharacterError)
    assert "vocabulary" in refusal(neverseen(*question, "--url", url))
    assert not (tmp_path / "a.csv").exists()


def test_a_service_gets_many_sets_in_pieces_that_one_version_answers(
    tmp_path: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    database: Database,
    settings: Settings,
    artifact: Artifact,
) -> None:
    asked = Asked(sketch="tiny", version=None, measurements=[Measurement(text="max")], question=Question())
    (tmp_path / "sets.csv").write_text("set,document\n" + "".join(f"s{i},{i}\n" for i in range(12)))
    items = read_sets(tmp_path / "sets.csv")
    monkeypatch.setattr(sets, "_MOST_PIECE_BYTES", 5 * len(items[0].model_dump_json()) + 10)
    with Neverseen(url) as service:
        answers = sets.answers_of_service(service, asked, items)
        first = next(answers)
        with transaction(database) as session:
            dataset = catalog.get_dataset(session, "names")
            register(session, settings, dataset, artifact, sketch="tiny")
        rest = list(answers)
        batches = [record for record in service.iterate_audit_records() if record.action == "predict"]
    assert [(one.index, one.id, one.version) for one in (first, *rest)] == [(i, f"s{i}", 1) for i in range(12)]
    assert len({record.request_id for record in batches}) == 3


def test_a_key_of_few_requests_a_minute_gets_smaller_pieces(tmp_path: Path) -> None:
    (tmp_path / "sets.csv").write_text("set,document\n" + "".join(f"s{i},{i}\n" for i in range(5)))
    says = [refused(LimitError), Said(body=LINE % 0 + LINE % 1)]
    question = ("predict", "tiny", "--text", "max", "--file", tmp_path / "sets.csv", "--url")
    with saying(*says, says[1], Said(body=LINE % 0)) as tiny:
        answered(neverseen(*question, tiny.url))
    assert [len(json.loads(body)["deletions"]) for *_, body in tiny.asked] == [5, 2, 2, 1]
    assert "version" not in json.loads(tiny.asked[1][3])
    assert [json.loads(body)["version"] for *_, body in tiny.asked[2:]] == [1, 1]
    with saying(says[0]) as tiny:
        assert "Not now." in refusal(neverseen(*question, tiny.url))
    assert [len(json.loads(body)["deletions"]) for *_, body in tiny.asked] == [5, 2, 1]


def test_what_was_answered_before_a_service_went_away_is_kept(tmp_path: Path) -> None:
    (tmp_path / "sets.csv").write_text(BY_UNIT)
    output = tmp_path / "answers.jsonl"
    with saying(Said(body=LINE % 0)) as tiny:
        said = neverseen(
            "predict", "tiny", "--text", "max", "--file", tmp_path / "sets.csv", "--output", output, "--url", tiny.url
        )
    assert said.exit_code == 2
    assert "What was answered before is in answers.jsonl.partial." in said.output
    assert "It ended after 1 of 2 answers." in said.output
    assert not output.exists()
    [line] = (tmp_path / "answers.jsonl.partial").read_text().splitlines()
    assert json.loads(line)["index"] == 0
