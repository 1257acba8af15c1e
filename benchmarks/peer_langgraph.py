"""Appends and reads with a checkpointer of LangGraph, for benchmarks/memory.py; runs in an environment of its own.

    python benchmarks/peer_langgraph.py sqlite FILE | postgresql URL

Reads one JSON line for each request and answers with one: the milliseconds of one operation. `fill` gives each
conversation its messages. A turn of a graph loads the state of its thread, adds to the messages and puts a checkpoint
of the new state: so does `append`. `read` takes the last 50 messages of the state.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint


def opened(kind: str, place: str) -> Any:
    """The saver, with its tables."""
    if kind == "sqlite":
        import sqlite3

        from langgraph.checkpoint.sqlite import SqliteSaver

        connection = sqlite3.connect(place, check_same_thread=False)
        saver: Any = SqliteSaver(connection)
        saver.setup()
        connection.execute("PRAGMA synchronous=FULL")  # it has chosen the write-ahead log itself
        return saver
    import psycopg
    from langgraph.checkpoint.postgres import PostgresSaver

    saver = PostgresSaver(psycopg.connect(place, autocommit=True, row_factory=psycopg.rows.dict_row))
    saver.setup()
    return saver


def main() -> None:
    saver, heads = opened(*sys.argv[1:3]), dict[str, int]()

    def put(id: str, messages: list[Any]) -> None:
        heads[id] = heads.get(id, 0) + 1
        checkpoint = empty_checkpoint()
        version = f"{heads[id]:032}.0"
        checkpoint["channel_values"], checkpoint["channel_versions"] = {"messages": messages}, {"messages": version}
        config = {"configurable": {"thread_id": id, "checkpoint_ns": ""}}
        metadata = {"source": "loop", "step": heads[id], "parents": {}}
        saver.put(config, checkpoint, metadata, {"messages": version})

    def state(id: str) -> list[Any]:
        found: list[Any] = saver.get_tuple({"configurable": {"thread_id": id}}).checkpoint["channel_values"]["messages"]
        return found

    for line in sys.stdin:
        request = json.loads(line)
        message = request["message"]
        work: dict[str, Callable[[str], object]] = {
            "fill": lambda id: put(id, [message] * request["length"]),  # noqa: B023 - called at once
            "append": lambda id: put(id, [*state(id), message]),  # noqa: B023
            "read": lambda id: state(id)[-50:],
        }
        began = time.perf_counter()
        for id in request["ids"]:
            work[request["do"]](id)
        print(json.dumps((time.perf_counter() - began) / len(request["ids"]) * 1000), flush=True)


if __name__ == "__main__":
    main()
