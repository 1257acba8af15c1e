"""D210 and D211: personal data and secrets that would be learnt, and then told to anyone who asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from plume.checks.rules import Batch, rule
from plume.redact import PERSONAL, SECRETS, Match, Names, may_hold_name, may_hold_personal, may_hold_secret, recognise
from plume.types import Example, Finding

_NAMED = {  # one, several
    "iban": ("a bank account number (IBAN)", "bank account numbers (IBAN)"),
    "nir": ("a French social-security number", "French social-security numbers"),
    "card": ("a payment card number", "payment card numbers"),
    "ip": ("an IP address", "IP addresses"),
    "email": ("an e-mail address", "e-mail addresses"),
    "phone": ("a telephone number", "telephone numbers"),
    "name": ("a name of the list", "names of the list"),
    "private-key": ("a private key", "private keys"),
    "anthropic-key": ("an Anthropic API key", "Anthropic API keys"),
    "openai-key": ("an OpenAI API key", "OpenAI API keys"),
    "aws-key": ("an AWS access key", "AWS access keys"),
    "github-token": ("a GitHub token", "GitHub tokens"),
    "gitlab-token": ("a GitLab token", "GitLab tokens"),
    "slack-token": ("a Slack token", "Slack tokens"),
    "google-key": ("a Google API key", "Google API keys"),
    "hugging-face-token": ("a Hugging Face token", "Hugging Face tokens"),
    "stripe-key": ("a Stripe key", "Stripe keys"),
    "jwt": ("a JSON Web Token", "JSON Web Tokens"),
    "url-credentials": ("a password in an address", "passwords in addresses"),
    "api-key": ("a key or token", "keys or tokens"),
    "password": ("a password", "passwords"),
}
_PLACES = {"user": "prompt", "assistant": "completion", "system": "system turn", "tool": "result of a call"}
_FEW = 16  # rows
_SHOWN = 4  # characters of a secret, and never more than a quarter of it


@rule("D210")
def personal_data(batch: Batch) -> Iterator[Finding]:
    """One finding for each row and kind of personal data."""
    for found in _found(batch, may_hold_personal, PERSONAL):
        yield _personal(found)


@rule("D211")
def secrets(batch: Batch) -> Iterator[Finding]:
    """One finding for each row and kind of secret; of the secret itself no more than its first characters."""
    for found in _found(batch, may_hold_secret, SECRETS):
        first = found.matches[0]
        shown = "" if first.kind == "private-key" else f" ({masked(first.text)}…)"
        yield Finding(
            "D211",
            "error",
            found.example.source,
            f"{_what(found)} {_where(found)}{shown}; the value is not shown",
            "withdraw the secret where it is valid, and remove it here: a trained model repeats what it has read",
            quote=masked(first.text),
        )


def listed_names(batch: Batch, names: Names) -> Iterator[Finding]:
    """D210 for the names that the person lists: one finding for each row that holds some."""
    for found in _found(batch, lambda text: may_hold_name(text, names), ["name"], names):
        yield _personal(found)


def masked(secret: str) -> str:
    """The first characters of a secret: enough to find it by, too few to use it."""
    return secret[: min(_SHOWN, len(secret) // 4)]


@dataclass(frozen=True, slots=True)
class _Found:
    example: Example
    places: tuple[str, ...]
    matches: tuple[Match, ...]


def _found(
    batch: Batch, may_hold: Callable[[str], bool], kinds: Collection[str], names: Names = frozenset()
) -> Iterator[_Found]:
    if not may_hold(batch.text):
        return
    if len(batch.examples) > _FEW:  # one row of a thousand need not cost a look at each
        for start in range(0, len(batch.examples), _FEW):
            yield from _found(Batch(batch.file, batch.examples[start : start + _FEW]), may_hold, kinds, names)
        return
    for example in batch.examples:
        by_kind: dict[str, list[tuple[str, Match]]] = {}
        for message in example.messages:
            if may_hold(message.said):
                for match in recognise(message.said, kinds, names):
                    by_kind.setdefault(match.kind, []).append((message.role, match))
        for matches in by_kind.values():
            places = dict.fromkeys("text" if example.is_text else _PLACES[role] for role, _ in matches)
            yield _Found(example, tuple(places), tuple(match for _, match in matches))


def _personal(found: _Found) -> Finding:
    return Finding(
        "D210",
        "warning",
        found.example.source,
        f"{_what(found)} {_where(found)}",
        "replace it by an invented one, or drop the row: a trained model repeats what it has read",
        quote=found.matches[0].text,
    )


def _what(found: _Found) -> str:
    one, several = _NAMED[found.matches[0].kind]
    return one if len(found.matches) == 1 else f"{len(found.matches)} {several}"


def _where(found: _Found) -> str:
    places = " and ".join(f"the {place}" for place in found.places)
    return f"in {places}"
