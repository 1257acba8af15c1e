"""Tokens as they stand in an answer: their text, their bytes, how likely they were."""

from __future__ import annotations

from openai.types.chat import ChatCompletionTokenLogprob
from openai.types.chat.chat_completion_token_logprob import TopLogprob

from plume.models.bundle import Bundle
from plume.types import TokenLogprob


class TokenTexts:
    """What the tokens of one model are called: half a character by its bytes, as OpenAI's API writes them."""

    def __init__(self, bundle: Bundle) -> None:
        self._tokenizer, self._stop_ids = bundle.tokenizer, bundle.stop_ids
        self._specials = {id: text for text, id in bundle.tokenizer.special_tokens.items()}

    def text(self, id: int) -> str:
        if id in self._specials:
            return self._specials[id]
        raw = self._tokenizer.token_bytes(id)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def bytes(self, id: int) -> bytes:
        """What the token adds to the text."""
        return self._tokenizer.token_bytes(id)

    def shown(self, tokens: tuple[TokenLogprob, ...]) -> list[ChatCompletionTokenLogprob]:
        """The tokens that stand for text, as chat completions report them."""
        return [
            ChatCompletionTokenLogprob(
                token=self.text(token.id),
                bytes=list(self._tokenizer.token_bytes(token.id)),
                logprob=token.logprob,
                top_logprobs=[
                    TopLogprob(token=self.text(id), bytes=list(self._tokenizer.token_bytes(id)), logprob=logprob)
                    for id, logprob in token.top
                ],
            )
            for token in tokens
            if token.id not in self._stop_ids
        ]
