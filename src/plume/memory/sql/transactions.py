"""Transactions of the SQL stores: what reads, what writes, and what may be tried again."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from plume.data.sql import safe_name, said
from plume.errors import PlumeError, UserError
from plume.memory.records import microseconds
from plume.memory.sql.connect import Database, connect
from plume.memory.sql.migrate import migrate
from plume.memory.sql.prepared import Prepared
from plume.memory.sql.scrub import scrub
from plume.memory.sql.statements import Statements
from plume.memory.store import Clock, Durability

T = TypeVar("T")
_ATTEMPTS = 5
_LOST_RACES = {"40001", "40P01", 1213}  # serialisation failure and deadlock: rolled back, to be tried again
_CHECK = "check that the server runs, user, password, database and options of the URL, and the right to create tables"


class Transactions:
    """A database with its tables, opened at `url`. `name` is the URL without its password."""

    def __init__(self, url: str, clock: Clock | None) -> None:
        self._url, self.name = url, safe_name(url)
        self._database = _reached(url, self.name)
        self._clock = time.time if clock is None and self._database.now is None else clock
        now = self._database.now if self._clock is None else None
        self.dialect = self._database.reader.dialect.name
        self.statements = Statements(now, self._database.reader.dialect)
        try:
            migrate(self._database, self.name)
        except SQLAlchemyError as error:
            self._database.close()
            raise UserError(f"{self.name}: {said(error, url)}", _CHECK) from None
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def durability(self) -> Durability:
        return self.write(self._database.durability)

    def scrub(self) -> tuple[str, ...]:
        try:
            return scrub(self._database, self.name)
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise PlumeError(f"{self.name}: {said(error, self._url)}", "check the database, then erase again") from None

    def clock(self) -> dict[str, int]:
        """What the statements want to be told about the time: nothing where the server's clock counts."""
        return {} if self._clock is None else {"now": microseconds(self._clock())}

    def now(self, connection: Connection) -> int:
        return int(connection.execute(self.statements.now, self.clock()).scalar_one())

    def rows(self, statement: Any, parameters: dict[str, Any]) -> Sequence[Any]:
        """Of one statement that reads, tried again on a new connection if the old one turns out dead."""
        for attempt in range(_ATTEMPTS):
            try:
                with self._database.reader.connect() as connection:
                    wanted = {**self.clock(), **parameters}
                    if isinstance(statement, Prepared):
                        return statement.rows(connection, wanted)
                    return connection.execute(statement, wanted).all()
            except SQLAlchemyError as error:
                if attempt + 1 == _ATTEMPTS or not getattr(error, "connection_invalidated", False):
                    raise self._failed(error) from None
        raise AssertionError

    def write(self, work: Callable[[Connection], T]) -> T:
        """`work` in a transaction. It is repeated when the database gave it up for another's sake, or when the
        connection was dead before the commit; never when the commit may have happened."""
        for attempt in range(_ATTEMPTS):
            worked = False
            try:
                with self._database.turn, self._database.begin() as connection:
                    result = work(connection)
                    worked = True
                return result
            except SQLAlchemyError as error:
                if attempt + 1 == _ATTEMPTS or not _again(error, worked):
                    raise self._failed(error, worked) from None
        raise AssertionError

    def _failed(self, error: SQLAlchemyError, worked: bool = False) -> PlumeError:
        if worked and getattr(error, "connection_invalidated", False):
            hint = "look whether it was written; an append with ids may simply be repeated"
            return PlumeError(f"{self.name}: the connection broke during the commit", hint)
        hint = "nothing was written; check the database, then try again"
        return PlumeError(f"{self.name}: {said(error, self._url)}", hint)


def _reached(url: str, name: str) -> Database:
    """The database, connected once where it is a server: what a driver makes of an option that it does not know, or of
    a value that it does not expect, is any of these. Raises UserError."""
    try:
        database = connect(url, name)
        if database.now is not None:
            database.reader.connect().close()
    except (SQLAlchemyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise UserError(f"{name}: {said(error, url)}", _CHECK) from None
    return database


def _again(error: SQLAlchemyError, worked: bool) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error, IntegrityError):  # somebody made the same row a moment before
        return True
    numbers = error.orig.args[:1] if error.orig else ()
    codes = {getattr(error.orig, "sqlstate", None), *numbers}
    return bool(codes & _LOST_RACES) or (error.connection_invalidated and not worked)
