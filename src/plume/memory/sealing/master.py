"""Master keys of sealed stores: 32 random bytes each, from the environment, a file or a command.

Several may be given at once: those that a store knows open it, and the store says which of them seals. A key is used
through three others derived from it, and nothing shows it: not its repr, no error, no program's arguments.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plume.errors import UserError

KEY, KEY_FILE, KEY_COMMAND = "PLUME_STORE_KEY", "PLUME_STORE_KEY_FILE", "PLUME_STORE_KEY_COMMAND"
SIZE = 32  # bytes: AES-256

HINT = "a key is 32 random bytes in hex or base64: openssl rand -hex 32"

_SECONDS = 120  # for a command, behind which somebody may have to type something


@dataclass(frozen=True, slots=True)
class MasterKey:
    """`id` names it in a store and tells nothing of it; `wrap` encrypts data keys, `check` proves it."""

    id: str
    wrap: bytes = field(repr=False)
    check: bytes = field(repr=False)


def master_key(secret: bytes) -> MasterKey:
    """The key that these 32 bytes are."""
    if len(secret) != SIZE:
        raise UserError(f"a key of {len(secret)} bytes, not {SIZE}", HINT)
    return MasterKey(
        expand(secret, b"plume id")[:8].hex(), expand(secret, b"plume wrap"), expand(secret, b"plume check")
    )


def expand(secret: bytes, label: bytes) -> bytes:
    """Another key of 32 bytes: HKDF-Expand (RFC 5869), which is enough for a secret that is uniformly random."""
    return hmac.digest(secret, label + b"\x01", hashlib.sha256)


def master_keys(key_file: Path | None = None, environ: Mapping[str, str] = os.environ) -> tuple[MasterKey, ...]:
    """Those given by `key_file`, or else by the one variable of the environment that is set; none without any.

    Raises UserError for what is no key, a file that others may read, a command that fails, and two sources at once.
    """
    if key_file is not None:
        return _parsed(key_text(key_file), str(key_file))
    given = [name for name in (KEY, KEY_FILE, KEY_COMMAND) if environ.get(name)]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} are both set", "set one of them")
    if not given:
        return ()
    source, value = given[0], environ[given[0]]
    if source == KEY_FILE:
        return _parsed(key_text(Path(value)), f"{source}={value}")
    return _parsed(value if source == KEY else _told(value), source)


def key_text(path: Path) -> str:
    """What a file with a key holds. Raises UserError for one that others may read or change."""
    try:
        with path.open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise UserError(f"{path}: others may read or change this key", f"chmod 600 {shlex.quote(str(path))}")
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "name a file with the key that only you can read") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is no key", HINT) from None


def _told(command: str) -> str:
    """What a command prints, run without a shell. What it says on stderr goes there."""
    where = f"the command of {KEY_COMMAND}"
    try:
        words = shlex.split(command)
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False, timeout=_SECONDS)
        if done.returncode == 0:
            return done.stdout.decode("ascii")
        problem = f"{where} ended with {done.returncode}"
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        problem = f"{where} gave no key: {_reason(error)}"
    raise UserError(problem, "run it by hand: it must print the key and nothing else")


def _reason(error: Exception) -> str:
    """In words that cannot contain what the command printed."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took more than {_SECONDS} s"
    return "it printed something else" if isinstance(error, UnicodeDecodeError) else "it cannot be understood"


def _parsed(text: str, source: str) -> tuple[MasterKey, ...]:
    words = re.split(r"[\s,]+", text.strip())
    secrets = [secret_bytes(word) for word in words if word]
    if not secrets:
        raise UserError(f"{source}: there is no key", HINT)
    keys: dict[str, MasterKey] = {}
    for place, secret in enumerate(secrets, 1):
        if secret is None:
            which = f"key {place} of {len(secrets)}" if len(secrets) > 1 else "it"
            raise UserError(f"{source}: {which} is no key", HINT)
        key = master_key(secret)
        keys.setdefault(key.id, key)
    return tuple(keys.values())


def secret_bytes(word: str) -> bytes | None:
    """The 32 bytes that a word is in hex or in either base64, padded or not; None for any other."""
    try:
        if len(word) == 2 * SIZE:
            return bytes.fromhex(word)
        padded = word.rstrip("=") + "=" * (-len(word.rstrip("=")) % 4)
        secret = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (ValueError, binascii.Error):
        return None
    return secret if len(secret) == SIZE else None
