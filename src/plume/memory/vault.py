"""What redaction took out of a conversation, sealed: a document of its tenant that nobody can open without the key.

AES-GCM, with the tenant and the conversation as associated data: a vault put in another's place does not open.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plume.errors import PlumeError, UserError, WrongKey, shown
from plume.memory.sealing.master import HINT, key_text, secret_bytes
from plume.memory.store import VAULT, Store, Tenant
from plume.redact import restored

VARIABLE, FILE_VARIABLE = "PLUME_VAULT_KEY", "PLUME_VAULT_KEY_FILE"
_FORM = 1
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Vault:
    """A vault as it is stored; `key` names the key that seals it, without telling it."""

    tenant: str
    conversation: str
    key: str
    nonce: bytes
    sealed: bytes

    def body(self) -> dict[str, Any]:
        texts = {"nonce": _text(self.nonce), "sealed": _text(self.sealed)}
        return {"form": _FORM, "key": self.key, **texts}


def read_key(environ: Mapping[str, str] = os.environ) -> bytes:
    """A key as those of sealed stores are, from the environment or a file that it names. Raises UserError."""
    text, file = environ.get(VARIABLE), environ.get(FILE_VARIABLE)
    if bool(text) == bool(file):
        said = "both are set" if text else "neither is set"
        raise UserError(f"the key to the vaults: of {VARIABLE} and {FILE_VARIABLE} {said}", f"set one; {HINT}")
    if file:
        text = key_text(Path(file))
    key = secret_bytes((text or "").strip())
    if key is None:
        raise UserError(f"{f'{FILE_VARIABLE}={file}' if file else VARIABLE}: this is no key to the vaults", HINT)
    return key


def seal(values: Mapping[str, str], key: bytes, tenant: str, conversation: str) -> Vault:
    """The value of each mark, sealed."""
    nonce = os.urandom(_NONCE_BYTES)
    plain = json.dumps(dict(values), ensure_ascii=False).encode("utf-8", "surrogatepass")
    name = _name(key)
    sealed = _cipher(key).encrypt(nonce, plain, _bound(tenant, conversation, name))
    return Vault(tenant, conversation, name, nonce, sealed)


def unseal(vault: Vault, key: bytes) -> dict[str, str]:
    """The value of each mark. Raises WrongKey for another key, PlumeError for a vault that was changed or moved."""
    where = f"the vault of conversation {shown(vault.conversation)}"
    if _name(key) != vault.key:
        raise WrongKey(f"{where} was sealed with the key {vault.key}, not {_name(key)}", "give that key")
    from cryptography.exceptions import InvalidTag

    try:
        bound = _bound(vault.tenant, vault.conversation, vault.key)
        plain = _cipher(key).decrypt(vault.nonce, vault.sealed, bound)
    except InvalidTag:
        raise PlumeError(f"{where} is damaged, or belongs to another conversation") from None
    values: dict[str, str] = json.loads(plain.decode("utf-8", "surrogatepass"))
    return values


def restore(text: str, vault: Vault, key: bytes) -> str:
    """The text with each value in the place of its mark. Raises as `unseal` does."""
    return restored(text, unseal(vault, key))


def find_vault(tenant: Tenant, conversation: str) -> Vault:
    """Raises NotFound when nothing was taken out of it."""
    return vault_of(tenant.name, conversation, tenant.get(VAULT, conversation).body)


def has_vaults(store: Store) -> bool:
    return next(_newest(store), None) is not None


def check_key(store: Store, key: bytes) -> None:
    """Raises WrongKey where there are vaults, and of no tenant the newest one was sealed with this key: a store that
    goes on with another key passes as soon as it has sealed a vault with it."""
    name, other = _name(key), None
    for vault in _newest(store):
        if vault.key == name:
            return
        other = other or vault.key
    if other is not None:
        raise WrongKey(f"the vaults of this store were sealed with the key {other}, not {name}", "give that key")


def _newest(store: Store) -> Iterator[Vault]:
    """One of each tenant that has any."""
    after = None
    while names := store.tenants(after=after):
        for name in names:
            yield from (vault_of(name, one.id, one.body) for one in store.tenant(name).documents(VAULT, limit=1))
        after = names[-1]


def vault_of(tenant: str, conversation: str, body: Any) -> Vault:
    try:
        if body["form"] != _FORM:
            raise PlumeError(f"a vault has the form {body['form']!r}, which this Plume cannot read", "use a newer one")
        nonce, sealed = (base64.b64decode(body[name], validate=True) for name in ("nonce", "sealed"))
        return Vault(tenant, conversation, str(body["key"]), nonce, sealed)
    except (KeyError, TypeError, ValueError):
        raise PlumeError(f"the vault of conversation {shown(conversation)} is damaged") from None


def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError:
        raise UserError("sealing needs the library cryptography", "pip install 'plume-lm[sealing]'") from None
    return AESGCM(key)


def _bound(tenant: str, conversation: str, key: str) -> bytes:
    return json.dumps(["plume vault", _FORM, key, tenant, conversation]).encode("utf-8")


def _name(key: bytes) -> str:
    return hashlib.sha256(b"plume vault key\0" + key).hexdigest()[:16]


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
