"""Statements of every turn: SQLAlchemy writes each once, and the driver's own cursor runs it.

`Connection.execute` takes several times as long as SQLite itself does for one row (docs/lab-notes.md). Rows come as the
driver gives them: tuples, in which a `Name` is its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement

Parameters = Mapping[str, Any]


class Prepared:
    """`columns` are those that an INSERT fills. Parameters are whole numbers, bytes, and text for a `Name`."""

    def __init__(self, statement: ClauseElement, dialect: Dialect, columns: Sequence[str] | None = None) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=columns)
        names = compiled.bind_names
        self._constants = {names[one]: one.value for one in names if not one.required}
        self._order: Sequence[str] | None = compiled.positiontup  # None where the driver wants names
        self._sql = str(compiled)

    def rows(self, connection: Connection, parameters: Parameters) -> Sequence[tuple[Any, ...]]:
        return run(connection, self._sql, self._values(parameters), fetch=True)

    def run(self, connection: Connection, parameters: Parameters) -> None:
        run(connection, self._sql, self._values(parameters))

    def run_each(self, connection: Connection, parameters: Sequence[Parameters]) -> None:
        if len(parameters) == 1:
            self.run(connection, parameters[0])
        else:
            run(connection, self._sql, [self._values(one) for one in parameters], many=True)

    def _values(self, parameters: Parameters) -> Any:
        told = {**self._constants, **parameters} if self._constants else parameters
        if self._order is None:
            return {name: _raw(value) for name, value in told.items()}
        return [_raw(told[name]) for name in self._order]


def _raw(value: Any) -> Any:
    return value.encode("utf-8") if isinstance(value, str) else value


def run(
    connection: Connection, sql: str, values: Any = (), *, fetch: bool = False, many: bool = False
) -> Sequence[Any]:
    """Errors come as SQLAlchemy's own, and what they leave unusable is given up, as `Connection.execute` does it."""
    opened: Any = connection.connection.dbapi_connection
    cursor = opened.cursor()
    try:
        (cursor.executemany if many else cursor.execute)(sql, values)
        found = cursor.fetchall() if fetch else ()
        cursor.close()
        return found
    except connection.dialect.loaded_dbapi.Error as error:
        dialect = connection.dialect
        dead = dialect.is_disconnect(error, opened, cursor)
        if dead:  # and so are the others in the pool
            connection.invalidate(error)
            connection.engine.dispose()
        known: dict[str, Any] = {"connection_invalidated": dead, "hide_parameters": True, "dialect": dialect}
        raise DBAPIError.instance(sql, None, error, dialect.loaded_dbapi.Error, **known) from error
    except BaseException as error:  # a signal, perhaps between a question and its answer
        if connection.dialect.name != "sqlite":
            connection.invalidate(error)
        raise
