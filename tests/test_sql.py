"""Rows of queries, from SQLite and from real PostgreSQL and MariaDB servers; nothing is written, no password shown."""

import contextlib
import sqlite3
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

import servers
from plume.data.json_text import Value
from plume.data.sql import is_url, records, safe_name
from plume.errors import UserError
from plume.types import Finding

SECRET = urllib.parse.quote(servers.PASSWORD, safe="")
TABLE = "CREATE TABLE qa (id INT, prompt TEXT, price DECIMAL(6, 2), day DATE)"
ROWS = "INSERT INTO qa VALUES (1, 'Où est 100 % ?', 1.50, '2026-11-03'), (2, NULL, NULL, NULL)"


def rows(url: str, query: str) -> list[Any]:
    found = list(records(url, query))
    assert [one.line for one in found if isinstance(one, Value)] == list(range(1, len(found) + 1))
    return [one.value for one in found if isinstance(one, Value)]


def refusal(url: str, query: str = "SELECT 1") -> UserError:
    with pytest.raises(UserError) as error:
        list(records(url, query))
    return error.value


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server with the table `qa`."""
    start, database = (servers.postgresql, "postgres") if request.param == "postgresql" else (servers.mariadb, "plume")
    with start() as port:
        url = f"{request.param}://plume:{SECRET}@127.0.0.1:{port}/{database}"
        execute(url, TABLE, ROWS)
        yield url


def execute(url: str, *statements: str) -> None:
    driver = url.replace("postgresql://", "postgresql+psycopg://").replace("mariadb://", "mariadb+pymysql://")
    arguments = {"password": servers.PASSWORD.encode()} if "mariadb" in url else {}
    engine = sqlalchemy.create_engine(driver, connect_args=arguments)
    with contextlib.closing(engine.raw_connection()) as connection:
        for statement in statements:
            connection.cursor().execute(statement)
        connection.commit()
    engine.dispose()


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "été #1?.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE qa (prompt TEXT, completion, weight REAL)")
        connection.executemany("INSERT INTO qa VALUES (?, ?, ?)", [("100 % ?", "a", 0.5), (None, 3, None)])
        connection.commit()
    return f"sqlite:///{urllib.parse.quote(str(path))}"


def test_sqlite_rows_stay_what_they_are(database: str) -> None:
    assert rows(database, "SELECT * FROM qa WHERE prompt LIKE '%' OR ':name' = '' OR prompt IS NULL") == [
        {"prompt": "100 % ?", "completion": "a", "weight": 0.5},
        {"prompt": None, "completion": 3, "weight": None},
    ]
    assert rows(database, " -- the rows\n/* all */ WITH x AS (SELECT 1 AS a) SELECT a FROM x") == [{"a": 1}]
    assert rows(database, "VALUES (1), (2)") == [{"column1": 1}, {"column1": 2}]


def test_bytes_in_sqlite_are_text_or_a_finding(database: str) -> None:
    query = "SELECT x'c3a9' AS a UNION ALL SELECT CAST(x'ff' AS TEXT) UNION ALL SELECT 'b'"
    found = list(records(database, query))
    assert [one.value if isinstance(one, Value) else (one.code, one.source.line) for one in found] == [
        {"a": "é"},
        ("D107", 2),
        {"a": "b"},
    ]


def test_queries_without_rows_or_with_one_name_twice_are_findings(database: str) -> None:
    none = list(records(database, "SELECT prompt FROM qa WHERE 0"))
    assert [one.code for one in none if isinstance(one, Finding)] == ["D215"]
    twice = list(records(database, "SELECT 1 AS a, 2 AS a"))
    assert [one.code for one in twice if isinstance(one, Finding)] == ["D103"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("DELETE FROM qa", "only reads"),
        ("", "only reads"),
        ("selection", "only reads"),
        ("SELECT 1 INTO OUTFILE 'x'", "only reads"),
        ("WITH x AS (SELECT 1) DELETE FROM qa", "readonly"),
        ("SELECT 1; DELETE FROM qa", "one statement"),
        ("SELECT absent FROM qa", "no such column: absent"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("SELECT (", "incomplete input"),
    ],
)
def test_other_queries_are_refused_and_change_nothing(database: str, query: str, said: str) -> None:
    assert said in refusal(database, query).message
    assert len(rows(database, "SELECT * FROM qa")) == 2


def test_files_that_are_no_database(tmp_path: Path) -> None:
    (tmp_path / "qa.csv").write_text("prompt,completion\n" * 100, encoding="utf-8")
    assert "not a database" in refusal(f"sqlite:///{tmp_path}/qa.csv", "SELECT * FROM qa").message
    assert "no such file" in refusal(f"sqlite:///{tmp_path}/none.db").message
    assert not (tmp_path / "none.db").exists()


def test_a_server_gives_its_rows(server: str) -> None:
    query = "SELECT * FROM qa WHERE prompt LIKE '%' OR prompt IS NULL OR ':a' = '%(b)s' ORDER BY id"
    assert rows(server, query) == [
        {"id": 1, "prompt": "Où est 100 % ?", "price": "1.50", "day": "2026-11-03"},
        {"id": 2, "prompt": None, "price": None, "day": None},
    ]


def test_a_server_streams_more_rows_than_a_batch(server: str) -> None:
    many = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 900) SELECT a.i FROM r a, qa, qa b"
    found = records(server, many)
    assert isinstance(next(found), Value)
    found.close()  # type: ignore[attr-defined]
    assert len(rows(server, many)) == 3600


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM qa",
        "SELECT 1; DELETE FROM qa",
        "SELECT 1; COMMIT; DELETE FROM qa",
        "WITH gone AS (DELETE FROM qa RETURNING id) SELECT id FROM gone",
        "SELECT absent FROM qa",
        "SELECT * FROM nowhere",
    ],
)
def test_a_server_is_never_written_to(server: str, query: str) -> None:
    error = refusal(server, query)
    assert_no_secret(error)
    assert len(rows(server, "SELECT id FROM qa")) == 2


def test_a_server_that_refuses_or_is_not_there(server: str) -> None:
    port = server.rpartition(":")[2].partition("/")[0]
    for url in (server.replace(SECRET, "wr%C3%B6ng-one"), server.replace(port, "1"), server + "_missing"):
        error = refusal(url)
        assert "password" in str(error.hint)
        assert_no_secret(error)
        assert "wr" not in error.message


def assert_no_secret(error: UserError) -> None:
    text = f"{error.message} {error.hint}"
    assert SECRET not in text
    assert servers.PASSWORD not in text
    assert "***" in text


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:s3cret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("mysql+pymysql://me:s3@cret:s3cret@host/db", "mysql+pymysql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?user=me&password=s3cret&sslmode=require", None),
        ("mysql://host/db?passwd=s3cret", "mysql://host/db?passwd=***"),
        ("sqlite:////home/me:x/a@b.db", "sqlite:////home/me:x/a@b.db"),
    ],
)
def test_the_name_of_a_source_has_no_password(url: str, name: str | None) -> None:
    assert is_url(url)
    assert safe_name(url) == (name or "postgresql://host/db?user=me&password=***&sslmode=require")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@host:port/db",
        "postgresql+nodriver://me:s3cret@host/db",
        "postgresql://me:s3cret@127.0.0.1:1/db?option=s3cret-x",
        "mysql://me:s3cret@127.0.0.1:1/db?option=1",
        "mysql+MySQLdb://me:s3cret@127.0.0.1:1/db",
    ],
)
def test_a_wrong_url_is_explained_without_its_password(url: str) -> None:
    error = refusal(url)
    assert "me:***@" in error.message
    assert "me:s3cret" not in error.message
    assert error.hint


def test_files_are_no_urls() -> None:
    assert not any(map(is_url, ("qa.jsonl", "data/postgres.csv", "C:\\qa.csv", "https://host/qa.csv", "sqlite.db")))


def test_without_sqlalchemy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert "plume-lm[sql]" in str(refusal("sqlite:///qa.db").hint)
