"""How much one key may ask for in a minute: requests, and tokens read and written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from plume.serving.errors import ApiError
from plume.serving.settings import Settings

if TYPE_CHECKING:
    from plume.serving.keys import Caller


class Limits:
    """Counters in this process's memory, one for each key and each kind of limit."""

    def __init__(self, settings: Settings) -> None:
        self._counters = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = _per_minute(settings.requests_per_minute)
        self._tokens = _per_minute(settings.tokens_per_minute)

    def request(self, caller: Caller) -> None:
        """Count a request. Raises ApiError 429 where the minute has had enough."""
        if self._requests and not self._counters.hit(self._requests, "requests", caller.key):
            raise self._refused(self._requests, "requests", caller)

    def tokens(self, caller: Caller, count: int) -> None:
        """Count the tokens of a prompt before it is read. Raises ApiError 429 where the minute has had enough."""
        if self._tokens is None:
            return
        if count > self._tokens.amount:
            message = f"the request has {count} tokens; a key may use {self._tokens.amount} a minute"
            raise ApiError(429, message, type="rate_limit_error", code="rate_limit_exceeded", retry=False)
        if not self._counters.hit(self._tokens, "tokens", caller.key, cost=count):
            raise self._refused(self._tokens, "tokens", caller)

    def written(self, caller: Caller, count: int) -> None:
        """Count the tokens of an answer, which is never cut for it: what comes next waits."""
        if self._tokens is None:
            return
        _, left = self._counters.get_window_stats(self._tokens, "tokens", caller.key)
        if cost := min(count, left):
            self._counters.hit(self._tokens, "tokens", caller.key, cost=cost)

    def _refused(self, item: RateLimitItem, kind: str, caller: Caller) -> ApiError:
        reset, remaining = self._counters.get_window_stats(item, kind, caller.key)
        seconds = max(0.1, reset - time.time())
        return ApiError(
            429,
            f"rate limit: {item.amount} {kind} a minute for one key",
            type="rate_limit_error",
            code="rate_limit_exceeded",
            retry_after=seconds,
            headers={
                f"x-ratelimit-limit-{kind}": str(item.amount),
                f"x-ratelimit-remaining-{kind}": str(remaining),
                f"x-ratelimit-reset-{kind}": f"{seconds:.3f}s",
            },
        )


def _per_minute(amount: int | None) -> RateLimitItem | None:
    return RateLimitItemPerMinute(amount) if amount else None
