"""A response from its pieces: the events of its stream, the last of which holds the whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from openai.types.chat import ChatCompletionTokenLogprob
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseError,
    ResponseFailedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputText,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
    ResponseUsage,
)
from openai.types.responses.response import IncompleteDetails
from openai.types.responses.response_output_text import Logprob, LogprobTopLogprob
from pydantic import BaseModel

from plume.memory.store import new_id
from plume.serving.items import Status, function_call, output_message
from plume.serving.said import CallPiece, Finish, Piece
from plume.serving.token_texts import TokenTexts
from plume.types import ToolCall

E = TypeVar("E", bound=BaseModel)


class Writer:
    """One response on its way. `texts` only where log-probabilities are to be told."""

    def __init__(self, response: Response, texts: TokenTexts | None) -> None:
        self.response, self._texts = response, texts
        self.tokens = 0
        self._events = 0
        self._finish: Finish = "length"
        self._id: str | None = None  # of the item that is being written
        self._text = ""
        self._logprobs: list[ChatCompletionTokenLogprob] = []
        self._call: ToolCall | None = None

    @property
    def began(self) -> bool:
        return self._events > 0

    def begin(self) -> Iterator[ResponseStreamEvent]:
        yield self._made(ResponseCreatedEvent, response=self.response)
        yield self._made(ResponseInProgressEvent, response=self.response)

    def add(self, piece: Piece) -> Iterator[ResponseStreamEvent]:
        """What is new."""
        self.tokens += piece.tokens
        self._finish = piece.finish or self._finish
        told = self._texts.shown(piece.logprobs) if self._texts else []
        if piece.text or told:
            if self._id is None:
                yield from self._open_text()
            self._text += piece.text
            self._logprobs += told
            logprobs = [_short(one) for one in told]
            yield self._here(ResponseTextDeltaEvent, content_index=0, delta=piece.text, logprobs=logprobs)
        if piece.call:
            yield from self._called(piece.call)

    def end(self, usage: ResponseUsage) -> Iterator[ResponseStreamEvent]:
        """What is left to say but the last event."""
        cut = self._finish == "length"
        if self._id is None and not self.response.output:
            yield from self._open_text()
        yield from self._close("incomplete" if cut else "completed")
        self._become(usage=usage, status="incomplete" if cut else "completed")
        if cut:
            self._become(incomplete_details=IncompleteDetails(reason="max_output_tokens"))
        else:
            self._become(completed_at=int(time.time()))

    def last(self) -> ResponseStreamEvent:
        if self.response.status == "incomplete":
            return self._made(ResponseIncompleteEvent, response=self.response)
        return self._made(ResponseCompletedEvent, response=self.response)

    def failed(self, message: str) -> ResponseStreamEvent:
        self._become(status="failed", error=ResponseError(code="server_error", message=message))
        return self._made(ResponseFailedEvent, response=self.response)

    def _open_text(self) -> Iterator[ResponseStreamEvent]:
        self._id, self._text, self._logprobs = new_id("msg"), "", []
        item = output_message(self._id, "", "in_progress")
        item.content = []
        yield self._here(ResponseOutputItemAddedEvent, item=item)
        yield self._here(ResponseContentPartAddedEvent, content_index=0, part=self._part())

    def _called(self, piece: CallPiece) -> Iterator[ResponseStreamEvent]:
        if piece.id is not None:
            yield from self._close("completed")
            self._id, self._call = new_id("fc"), ToolCall(piece.name or "", "", piece.id)
            item = function_call(self._id, self._call, "in_progress")
            yield self._here(ResponseOutputItemAddedEvent, item=item)
        assert self._call is not None
        self._call = ToolCall(self._call.name, self._call.arguments + piece.arguments, self._call.id)
        if piece.arguments:
            yield self._here(ResponseFunctionCallArgumentsDeltaEvent, delta=piece.arguments)

    def _close(self, status: Status) -> Iterator[ResponseStreamEvent]:
        """End the item that is being written, if there is one."""
        if self._id is None:
            return
        item: BaseModel
        if self._call is not None:
            arguments = self._call.arguments
            yield self._here(ResponseFunctionCallArgumentsDoneEvent, arguments=arguments, name=self._call.name)
            item = function_call(self._id, self._call, status)
        else:
            part, logprobs = self._part(), [_short(one) for one in self._logprobs]
            yield self._here(ResponseTextDoneEvent, content_index=0, text=self._text, logprobs=logprobs)
            yield self._here(ResponseContentPartDoneEvent, content_index=0, part=part)
            item = output_message(self._id, self._text, status).model_copy(update={"content": [part]})
        yield self._here(ResponseOutputItemDoneEvent, item=item)
        self._become(output=[*self.response.output, item])
        self._id, self._call = None, None

    def _part(self) -> ResponseOutputText:
        part = ResponseOutputText(type="output_text", text=self._text, annotations=[])
        if self._texts:
            part.logprobs = [_whole(one) for one in self._logprobs]
        return part

    def _become(self, **changes: Any) -> None:
        self.response = self.response.model_copy(update=changes)

    def _here(self, kind: type[E], **fields: Any) -> E:
        """An event about the item that is being written."""
        if "item" not in fields:
            fields["item_id"] = self._id
        return self._made(kind, output_index=len(self.response.output), **fields)

    def _made(self, kind: type[E], **fields: Any) -> E:
        (name,) = get_args(kind.model_fields["type"].annotation)
        made = kind(type=name, sequence_number=self._events, **fields)
        self._events += 1
        return made


def _whole(token: ChatCompletionTokenLogprob) -> Logprob:
    top = [LogprobTopLogprob(token=one.token, bytes=one.bytes or [], logprob=one.logprob) for one in token.top_logprobs]
    return Logprob(token=token.token, bytes=token.bytes or [], logprob=token.logprob, top_logprobs=top)


def _short(token: ChatCompletionTokenLogprob) -> dict[str, Any]:
    """As events have it: without bytes."""
    top = [{"token": one.token, "logprob": one.logprob} for one in token.top_logprobs]
    return {"token": token.token, "logprob": token.logprob, "top_logprobs": top}
