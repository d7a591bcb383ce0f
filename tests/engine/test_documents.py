"""Import: what comes in, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data import census_names
from engine.documents import Documents, parse_documents, read_documents, tokens
from engine.errors import DocumentsError, UnknownCharacterError

printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)


def test_a_text_file_holds_a_document_a_line_and_blank_lines_none(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffana\r\n\r\n  bob \nzoë".encode())
    documents = read_documents(file)
    assert documents.texts == ("ana", "bob", "zoë")
    assert documents.unit_names == ("0", "1", "2")
    assert documents.vocabulary == "abnozë"
    assert not documents.has_subjects


def test_lines_end_at_line_feeds_only_and_joiners_are_text() -> None:
    assert parse_documents("ab\u200ccd\r\nef", format="text").texts == ("ab\u200ccd", "ef")
    with pytest.raises(DocumentsError, match="unprintable") as error:
        parse_documents("ab\ncd\x0cef", format="text")
    assert error.value.line == 2


def test_csv_and_jsonl_give_one_unit_a_subject(tmp_path: Path) -> None:
    csv, jsonl = tmp_path / "a.csv", tmp_path / "a.jsonl"
    csv.write_text('subject,text\nann,"hello, you"\nbob,hi\nann,bye\n')
    jsonl.write_text(
        '{"text": "hello, you", "subject": "ann"}\n\n{"text":"hi","subject":"bob","more":1}\n'
        '{"text":"bye","subject":"ann"}'
    )
    assert read_documents(csv) == read_documents(jsonl)
    documents = read_documents(csv)
    assert documents.unit_of == (0, 1, 0)
    assert documents.unit_names == ("ann", "bob")


@pytest.mark.parametrize(
    ("format", "content", "line", "message"),
    [
        ("text", "ana\nb\tob", 2, "unprintable character"),
        ("csv", "name\nana", 1, "'text'"),
        ("csv", "text,subject\nana,x\nbob", 3, "2 columns"),
        ("csv", "text\nana,x", 2, "1 columns"),
        ("csv", 'text\nana\n"bob', 3, "Not CSV"),
        ("csv", "text\nana\n\n ", 4, None),
        ("csv", 'text,subject\n"",x', 2, "empty"),
        ("csv", "text,subject\nana,", 2, "'subject' is empty"),
        ("jsonl", '{"text": "ana"}\n{"text": ', 2, "Not JSON"),
        ("jsonl", '{"text": "ana"}\n\n["bob"]', 3, "an object"),
        ("jsonl", '{"text": 3}', 1, "string 'text'"),
        ("jsonl", '{"text": "a", "subject": 3}', 1, "'subject'"),
        ("jsonl", '{"text": "a\\u0000b"}', 1, "unprintable"),
        ("jsonl", '{"text": "\\ud800"}', 1, "unprintable"),
        ("jsonl", "[" * 100_000, 1, "Not JSON"),
        ("jsonl", '{"text": "a", "n": ' + "9" * 5_000 + "}", 1, "Not JSON"),
    ],
)
def test_malformed_content_is_refused_with_its_line(format: str, content: str, line: int, message: str | None) -> None:
    if message is None:
        assert parse_documents(content, format=format).texts == ("ana", " ")  # type: ignore[arg-type]
        return
    with pytest.raises(DocumentsError, match=message) as error:
        parse_documents(content, format=format)  # type: ignore[arg-type]
    assert error.value.line == line
    assert str(error.value).startswith(f"Line {line}: ")


@pytest.mark.parametrize(
    ("records", "message"),
    [([], "no document"), ([("a", "x"), ("b", None)], "Document 1 has no subject"), ([("", None)], "empty")],
)
def test_impossible_records_are_refused(records: list[tuple[str, str | None]], message: str) -> None:
    with pytest.raises(DocumentsError, match=message):
        Documents.from_records(records)


def test_a_file_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes("ana\nzoë".encode("latin-1"))
    with pytest.raises(DocumentsError, match="UTF-8") as error:
        read_documents(file)
    assert error.value.line == 2


def test_a_missing_file_is_named_without_its_directory(tmp_path: Path) -> None:
    with pytest.raises(DocumentsError, match=r"nowhere\.txt") as error:
        read_documents(tmp_path / "nowhere.txt")
    assert str(tmp_path) not in str(error.value)


@given(texts=st.lists(printable, min_size=1, max_size=20))
def test_the_fingerprint_depends_on_texts_order_and_units(texts: list[str]) -> None:
    plain = Documents.from_records((text, None) for text in texts)
    assert plain.fingerprint == Documents.from_records((text, None) for text in texts).fingerprint
    others = [
        Documents.from_records((text, None) for text in [*texts, "x"]),
        Documents.from_records((text, "everybody") for text in texts),
    ]
    if texts != texts[::-1]:
        others.append(Documents.from_records((text, None) for text in texts[::-1]))
    assert plain.fingerprint not in {other.fingerprint for other in others}


@given(texts=st.lists(printable, min_size=1, max_size=20), seed=st.integers(0, 99))
def test_shuffling_permutes_and_keeps_subjects_with_their_texts(texts: list[str], seed: int) -> None:
    documents = Documents.from_records((text, f"of {text}") for text in texts)
    shuffled = documents.shuffled(seed)
    assert sorted(shuffled.texts) == sorted(texts)
    for text, unit in zip(shuffled.texts, shuffled.unit_of, strict=True):
        assert shuffled.unit_names[unit] == f"of {text}"
    assert documents.shuffled(seed, limit=3).texts == shuffled.texts[:3]


def test_tokens_stand_between_two_bos() -> None:
    assert tokens("cab", "abc") == [3, 2, 0, 1, 3]


def test_a_foreign_character_is_named() -> None:
    with pytest.raises(UnknownCharacterError, match="'!' at position 2"):
        tokens("ab!", "abc")


def test_the_bundled_names_are_what_their_readme_says() -> None:
    names = census_names()
    assert len(names) == 5_163 == len(set(names.texts))
    assert names.vocabulary == "abcdefghijklmnopqrstuvwxyz"
    assert max(map(len, names.texts)) == 11
