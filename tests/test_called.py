"""Rows with tools: what is read, what is refused and where, what of them is learnt and what tells them apart."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from plume.checks.fix_rows import canonical_row
from plume.cli.main import app
from plume.data.keys import keys_of
from plume.data.read import read
from plume.data.spool import Examples
from plume.text.calls import tools_of
from plume.text.template import encode_example
from plume.types import Example, Finding, ToolCall
from serving import FIND, untrained

CALL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"what": "boat"}'}}
ROW: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Réponds."},
        {"role": "user", "content": "Bonjour"},
        {"role": "assistant", "content": "Oui ?", "weight": 0},
        {"role": "user", "content": "Où est la barque ?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "harbour"},
        {"role": "assistant", "content": "Au port.", "weight": 1},
    ],
    "tools": [FIND],
    "parallel_tool_calls": True,
}


def read_rows(directory: Path, *rows: Any) -> list[Example | Finding]:
    file = directory / "calls.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return list(read(file))


def example(directory: Path, row: Any = ROW) -> Example:
    (found,) = read_rows(directory, row)
    assert isinstance(found, Example), found
    return found


def test_tools_calls_and_results_are_read(tmp_path: Path) -> None:
    found = example(tmp_path)
    assert [message.role for message in found.messages] == [turn["role"] for turn in ROW["messages"]]
    call = found.messages[4]
    assert (call.content, call.tool_calls) == ("", (ToolCall("find", '{"what": "boat"}', "call_1"),))
    assert (found.messages[5].tool_call_id, found.messages[2].weight) == ("call_1", 0)
    assert list(tools_of(found.tools)) == [FIND]
    assert [turn.reply.said for turn in found.turns()] == ['find {"what": "boat"}', "Au port."]


def test_calls_are_learnt_and_results_and_replies_without_weight_are_not(tmp_path: Path) -> None:
    made = untrained()
    encoded = encode_example(example(tmp_path), made.template, made.tokenizer)
    learnt = made.tokenizer.decode([id for id, counts in zip(encoded.ids, encoded.trained, strict=True) if counts])
    assert learnt == '<tool_call>\n{"name": "find", "arguments": {"what": "boat"}}\n</tool_call>Au port.'
    read_too = made.tokenizer.decode(encoded.ids)
    assert "Oui ?" in read_too
    assert "harbour" in read_too
    assert '"name": "find", "parameters"' in read_too


def test_a_row_with_tools_is_asked_as_a_server_asks_it(tmp_path: Path) -> None:
    """The ids before a call are those that a client's request with the same tools gives."""
    made = untrained()
    shuffled = {"function": {"parameters": FIND["function"]["parameters"], "name": "find"}, "type": "function"}
    found = example(tmp_path, {**ROW, "tools": [shuffled]})
    encoded = encode_example(found, made.template, made.tokenizer)
    asked = made.template.encode(found.messages[:4], made.tokenizer, [FIND], reply=True).ids
    assert encoded.ids[: len(asked)] == asked


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    row = copy.deepcopy(ROW)
    change(row)
    return row


WRONG: list[tuple[str, Callable[[dict[str, Any]], object], str, str]] = [
    ("no tools", lambda row: row.pop("tools"), "D110", "messages[4] calls"),
    ("unknown tool", lambda row: row["tools"][0]["function"].update(name="ring"), "D110", "messages[4] calls"),
    ("tools no list", lambda row: row.update(tools={}), "D104", '"tools"'),
    ("tool no function", lambda row: row.update(tools=[FIND, {"type": "web"}]), "D104", "tools[1]"),
    ("tool with more", lambda row: row["tools"][0]["function"].update(returns={}), "D104", "tools[0]"),
    ("tool twice", lambda row: row.update(tools=[FIND, FIND]), "D104", "same name"),
    ("bad name", lambda row: row["tools"][0]["function"].update(name="où ?"), "D104", "tools[0]"),
    ("call no list", lambda row: row["messages"][4].update(tool_calls=CALL), "D104", "messages[4].tool_calls"),
    ("no calls", lambda row: row["messages"][4].update(tool_calls=[]), "D104", "messages[4].tool_calls"),
    ("call without id", lambda row: row["messages"][4]["tool_calls"][0].pop("id"), "D104", "tool_calls[0]"),
    (
        "arguments no JSON",
        lambda row: row["messages"][4]["tool_calls"][0]["function"].update(arguments="{"),
        "D104",
        "messages[4].tool_calls[0].function.arguments",
    ),
    (
        "arguments no object",
        lambda row: row["messages"][4]["tool_calls"][0]["function"].update(arguments="[1]"),
        "D104",
        "messages[4].tool_calls[0].function.arguments",
    ),
    ("result of nothing", lambda row: row["messages"][5].update(tool_call_id="call_2"), "D110", "messages[5]"),
    ("result without id", lambda row: row["messages"][5].pop("tool_call_id"), "D110", "messages[5]"),
    ("no result", lambda row: row["messages"].pop(5), "D110", "messages[5]"),
    ("result twice", lambda row: row["messages"].insert(5, row["messages"][5]), "D110", "messages[6]"),
    ("same id twice", lambda row: row["messages"][4]["tool_calls"].append(CALL), "D110", "same id"),
    ("ends on a result", lambda row: row["messages"].pop(6), "D110", "without a reply"),
    ("user calls", lambda row: row["messages"][3].update(tool_calls=[CALL]), "D110", "messages[3]"),
    ("weight 2", lambda row: row["messages"][6].update(weight=2), "D104", "messages[6].weight"),
    ("weight true", lambda row: row["messages"][6].update(weight=True), "D104", "messages[6].weight"),
    ("parallel what", lambda row: row.update(parallel_tool_calls="no"), "D104", "parallel_tool_calls"),
    (
        "parallel",
        lambda row: (
            row.update(parallel_tool_calls=False),
            row["messages"][4]["tool_calls"].append({**CALL, "id": "call_2"}),
            row["messages"].insert(5, {"role": "tool", "tool_call_id": "call_2", "content": "x"}),
        ),
        "D110",
        "several calls",
    ),
    (
        "nothing to learn",
        lambda row: [turn.update(weight=0) for turn in row["messages"] if turn["role"] == "assistant"],
        "D110",
        "weight 0",
    ),
]


@pytest.mark.parametrize(("change", "code", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_wrong_with_a_call_is_named_with_its_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], code: str, said: str
) -> None:
    good, wrong, last = read_rows(tmp_path, ROW, changed(change), ROW)
    assert isinstance(good, Example)
    assert isinstance(last, Example)
    assert isinstance(wrong, Finding)
    assert (wrong.code, wrong.severity, wrong.source.line) == (code, "error", 2)
    assert said in wrong.message


def test_several_calls_have_their_results_in_any_order(tmp_path: Path) -> None:
    def several(row: dict[str, Any]) -> None:
        row["messages"][4]["tool_calls"].append({**CALL, "id": "call_2"})
        row["messages"].insert(5, {"role": "tool", "tool_call_id": "call_2", "content": "x"})

    assert len(example(tmp_path, changed(several)).messages[4].tool_calls) == 2


def test_nothing_of_it_is_lost_on_the_way(tmp_path: Path) -> None:
    """In a file instead of memory, and in a corrected copy."""
    found = example(tmp_path)
    assert list(Examples([found] * 3, held=0)) == [found] * 3
    row = canonical_row(found, {"parallel_tool_calls": True}, pairs=False)
    written = [
        {**turn, "weight": 1} if turn["role"] == "assistant" and "weight" not in turn else turn
        for turn in row["messages"]
    ]
    given = [
        {**turn, "weight": turn.get("weight", 1)} if turn["role"] == "assistant" else turn for turn in ROW["messages"]
    ]
    assert written == given
    assert row["tools"] == ROW["tools"]
    fixed = tmp_path / "fixed.jsonl"
    ran = CliRunner().invoke(app, ["check", str(tmp_path / "calls.jsonl"), "--fix", str(fixed)])
    assert next(one for one in read(fixed) if isinstance(one, Example)).messages == found.messages, ran.output


def test_what_is_private_in_a_call_is_repaired_and_the_row_stays(tmp_path: Path) -> None:
    said = '{"to": "ann@harbour-office.fr", "card": 4539578763621486, "note": "\\u00e9t\\u00e9"}'
    private = changed(lambda row: row["messages"][4]["tool_calls"][0]["function"].update(arguments=said))
    private["messages"][6]["content"] = "Envoyé à ann@harbour-office.fr &amp; lu."
    read_rows(tmp_path, ROW, private)
    fixed = tmp_path / "fixed.jsonl"
    ran = CliRunner().invoke(app, ["check", str(tmp_path / "calls.jsonl"), "--fix", str(fixed)])
    found = [one for one in read(fixed) if isinstance(one, Example)]
    assert len(found) == 2, ran.output
    assert found[0].messages[4].tool_calls[0].arguments == '{"what": "boat"}'
    arguments = found[1].messages[4].tool_calls[0].arguments
    assert arguments == '{"to": "<email-1>", "card": "<card-1>", "note": "\\u00e9t\\u00e9"}'
    assert found[1].messages[6].content == "Envoyé à <email-1> & lu."
    journal = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("fixed*"))
    assert "ann@" not in journal
    assert "4539578763621486" not in journal
    assert '"message": 4' in journal


def test_rows_that_call_other_things_are_other_rows(tmp_path: Path) -> None:
    other = changed(lambda row: row["messages"][4]["tool_calls"][0]["function"].update(arguments='{"what": "bell"}'))
    for row in (ROW, other):
        row["messages"][6]["content"] = "Voilà."
    keys = keys_of(one for one in read_rows(tmp_path, ROW, other) if isinstance(one, Example))
    assert keys.said[0] != keys.said[1]


def test_nothing_is_derived_from_rows_with_tools(tmp_path: Path) -> None:
    """What stood in the calls would stay there, and be learnt."""
    read_rows(tmp_path, ROW)
    arguments = ["data", "derive", str(tmp_path / "calls.jsonl"), "--drop-attribute", "what"]
    arguments += ["--output-dir", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code != 0
    assert "has tools" in ran.output + ran.stderr
