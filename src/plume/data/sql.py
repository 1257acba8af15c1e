"""Rows of a query: SQLite, PostgreSQL, MySQL and MariaDB by their SQLAlchemy URL, streamed and never written to."""

from __future__ import annotations

import re
import sqlite3
import urllib.parse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plume.data.json_text import Value
from plume.data.tables import Batch, typed
from plume.errors import UserError
from plume.types import Finding

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

_ROWS = 1000  # of a batch
_SECONDS = 10  # until a server that does not answer counts as not there
_URL = re.compile(r"(sqlite|postgres(?:ql)?|mysql|mariadb)(\+\w+)?://", re.IGNORECASE)
_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_SECRET = re.compile(r"(?i)([?&;](?:[^=&;]*(?:pass|pwd|secret|token|key)[^=&;]*)=)([^&;]*)")
_BEFORE = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
_READS = re.compile(r"(?:select|with|values|table)\b", re.IGNORECASE)
_WRITES = re.compile(r"\binto\s+(?:outfile|dumpfile)\b", re.IGNORECASE)
_INSTALL = "pip install 'plume-lm[sql]'"


def is_url(text: str) -> bool:
    """Does the text name a database rather than a file?"""
    return bool(_URL.match(text))


def safe_name(url: str) -> str:
    """The URL with `***` for every password in it, whether or not it is well formed."""
    scheme, mark, rest = url.partition("://")
    if "@" in rest and not scheme.lower().startswith("sqlite"):
        person, _, place = rest.rpartition("@")
        user, colon, _ = person.partition(":")
        rest = f"{user}{colon}{'***' * bool(colon)}@{place}"
    return _SECRET.sub(r"\1***", scheme + mark + rest)


def records(url: str, query: str) -> Iterator[Value | Finding]:
    """The rows of a query under its columns' names; a value's line is its row, from 1.

    Only queries that read are run, in a read-only transaction that is rolled back. Raises UserError for any
    other statement, and for whatever the driver or the database has to complain of.
    """
    name = safe_name(url)
    before = _BEFORE.match(query)
    if not _READS.match(query, before.end() if before else 0) or _WRITES.search(query):
        raise UserError(f"{name}: the query is not one that only reads", "write SELECT …, WITH …, VALUES … or TABLE …")
    try:
        from sqlalchemy import exc
    except ModuleNotFoundError:
        raise UserError(f"{name}: the library that reads databases is missing", _INSTALL) from None
    try:
        connection = _engine(url, name).connect()
    except (exc.SQLAlchemyError, TypeError, ValueError, OSError) as error:
        hint = "check that the server runs, and the host, port, user, password and database"
        raise UserError(f"{name}: {said(error, url)}", hint) from None
    try:
        with connection:
            yield from _rows(connection, name, query)
    except exc.SQLAlchemyError as error:
        hint = "correct the query; run it first with the database's own client"
        raise UserError(f"{name}: {said(error, url)}", hint) from None


def _rows(connection: Connection, name: str, query: str) -> Iterator[Value | Finding]:
    """Leaving the connection rolls its transaction back."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    elif connection.dialect.name != "sqlite":
        connection.exec_driver_sql("START TRANSACTION READ ONLY")
    options = {"stream_results": True, "max_row_buffer": _ROWS, "no_parameters": True}
    with connection.exec_driver_sql(query, execution_options=options) as result:
        batches = (Batch(list(zip(*rows, strict=True))) for rows in result.partitions(_ROWS))
        yield from typed(list(result.keys()), batches, name)


def _engine(url: str, name: str) -> Engine:
    """Where connections come from; those to SQLite can only read."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    parsed, arguments = address(url, name)
    if parsed.get_backend_name() == "sqlite":
        creator = partial(_sqlite, parsed.database or "", name)
        return create_engine("sqlite://", creator=creator, poolclass=NullPool)
    try:
        return create_engine(parsed, poolclass=NullPool, connect_args=arguments)
    except ModuleNotFoundError as error:
        raise UserError(f"{name}: the driver {error.name} is missing", _INSTALL) from None


def address(url: str, name: str) -> tuple[URL, dict[str, Any]]:
    """A URL as SQLAlchemy knows it, with the driver, and what that driver is to be told beside it."""
    from sqlalchemy import exc, make_url

    try:
        parsed = make_url(re.sub("^postgres(?=[:+])", "postgresql", url, flags=re.IGNORECASE))
    except (exc.ArgumentError, ValueError):
        hint = "write dialect://user:password@host:port/database, with %40 for an @ in the password"
        raise UserError(f"{name} is not the URL of a database", hint) from None
    if parsed.get_backend_name() == "sqlite":
        return parsed, {}
    if parsed.drivername in _DRIVERS:
        parsed = parsed.set(drivername=f"{parsed.drivername}+{_DRIVERS[parsed.drivername]}")
    arguments: dict[str, Any] = {"connect_timeout": _SECONDS}
    if parsed.get_driver_name() == "pymysql" and parsed.password is not None:
        arguments["password"] = str(parsed.password).encode()  # PyMySQL would send it as Latin-1
    return parsed, arguments


def _sqlite(database: str, name: str) -> sqlite3.Connection:
    if not Path(database).is_file():
        raise UserError(f"{name}: no such file", "write sqlite:///FILE, with four slashes for an absolute path")
    connection = sqlite3.connect(f"file:{urllib.parse.quote(database)}?mode=ro", uri=True)
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str | bytes:
    """Text as it is stored; bytes that are not UTF-8 stay bytes, for a finding to say so."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def said(error: Exception, url: str) -> str:
    """What the driver or the database says, in one line, without any password."""
    said = getattr(error, "orig", None) or error
    numbered = len(said.args) > 1 and isinstance(said.args[0], int)
    reason = " ".join(str(said.args[1] if numbered else said).split("\n")[0].split())
    for secret in _secrets(url):
        reason = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", reason)
    return reason


def _secrets(url: str) -> Iterator[str]:
    """The passwords in a URL, as written and as meant, the longest first."""
    person, _, _ = url.partition("://")[2].rpartition("@")
    found = {person.partition(":")[2], *(match[2] for match in _SECRET.finditer(url))}
    found |= {urllib.parse.unquote(secret) for secret in found}
    yield from sorted(filter(None, found), key=len, reverse=True)
