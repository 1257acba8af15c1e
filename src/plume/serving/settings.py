"""What a server is told when it starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from plume.errors import UserError


@dataclass(frozen=True, slots=True)
class Settings:
    """`rows` answers of one model are decoded together, and `queue` more may wait for it. `memory_nbytes` bounds what
    loaded models may hold together, None for most of what is free. `store` is a store's URL, None for a file of
    `data_dir`. `otlp_endpoint` is the URL of an OpenTelemetry collector, None for no traces. With `recall`, responses
    that leave out the oldest turns take up again those of them that a question is about. Sizes in bytes, times in
    seconds; rates are for one key, None for no bound."""

    models: tuple[str, ...] = ()
    data_dir: Path = Path("plume-data")
    store: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    require_key: bool = False
    rows: int = 64
    queue: int = 256
    memory_nbytes: int | None = None
    max_body_nbytes: int = 8 * 2**20
    max_upload_nbytes: int = 512 * 2**20
    header_seconds: float = 10
    body_seconds: float = 30
    request_seconds: float = 600
    drain_seconds: float = 30
    ping_seconds: float = 15
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    otlp_endpoint: str | None = None
    jobs_at_once: int = 1
    recall: bool = False

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def store_url(self) -> str:
        return self.store or f"sqlite:///{(self.data_dir / 'plume.db').absolute()}"

    @property
    def needs_key(self) -> bool:
        return self.require_key or not self.loopback


def check(settings: Settings) -> None:
    """Raises UserError for numbers that cannot be meant."""
    for name in ("rows", "jobs_at_once", "max_body_nbytes", "request_seconds", "header_seconds", "body_seconds"):
        if getattr(settings, name) <= 0:
            raise UserError(f"{name} is {getattr(settings, name)}", "give a number above 0")
    for name in ("queue", "drain_seconds"):
        if getattr(settings, name) < 0:
            raise UserError(f"{name} is {getattr(settings, name)}", "give 0 or more")
    for name in ("requests_per_minute", "tokens_per_minute", "memory_nbytes"):
        if getattr(settings, name) is not None and getattr(settings, name) < 1:
            raise UserError(f"{name} is {getattr(settings, name)}", "give 1 or more, or leave it out")
