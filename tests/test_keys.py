"""Keys as a person makes, lists and revokes them."""

import json
from pathlib import Path

import pytest

from plume.memory import open_store
from plume.memory.keys import find_key
from test_cli import Plume, plume  # noqa: F401


def test_a_key_is_shown_once_and_opens_until_revoked(plume: Plume, tmp_path: Path) -> None:  # noqa: F811
    url = f"sqlite:///{tmp_path / 'plume-data' / 'plume.db'}"
    code, out, err = plume("keys", "create", "école", "--name", "la classe", "--scope", "read", "--json")
    made = json.loads(out)
    assert (code, err, made["tenant"], made["scopes"]) == (0, "", "école", ["read"])
    with open_store(url) as store:
        found = find_key(store, made["key"])
        assert found is not None
        assert (found.tenant, found.name) == ("école", "la classe")
    code, listed, _ = plume("keys", "list", "--tenant", "école", "--json")
    assert [key["prefix"] for key in json.loads(listed)["keys"]] == [made["prefix"]]
    assert made["key"].rsplit("-", 1)[1] not in listed
    assert plume("keys", "revoke", made["prefix"])[0] == 0
    with open_store(url) as store:
        assert find_key(store, made["key"]) is None


def test_names_are_listed_as_they_were_given(plume: Plume) -> None:  # noqa: F811
    name = "[red]la classe[/bold] de monsieur " + "Le Goff" * 20
    assert plume("keys", "create", "[b]école", "--name", name)[0] == 0
    code, out, _ = plume("keys", "list")
    assert (code, name in out, "[b]école" in out) == (0, True, True)


def test_no_secret_lies_in_the_store(plume: Plume, tmp_path: Path) -> None:  # noqa: F811
    _, out, _ = plume("keys", "create", "school")
    secret = out.strip().split("-", 2)[2].encode()
    files = [file for file in (tmp_path / "plume-data").iterdir() if file.is_file()]
    assert files
    assert not any(secret in file.read_bytes() for file in files)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "school", "--scope", "everything"], "unknown scopes"),
        (["create", "plume:keys"], "Plume's own"),
        (["revoke", "0000000000000000"], "there is no key"),
    ],
)
def test_what_cannot_be_done_with_keys_is_said(plume: Plume, arguments: list[str], said: str) -> None:  # noqa: F811
    plume("keys", "create", "school")
    code, out, err = plume("keys", *arguments)
    assert (code, out) == (2, "")
    assert said in err
