"""Recall searched by PostgreSQL with pgvector: the same as in memory, and nothing is found or left that has gone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy

from plume.data.sql import address as sql_address
from plume.errors import UserError
from plume.memory import open_store
from plume.memory.recall.places import Entry
from plume.memory.recall.search import Recall
from plume.memory.recall.vectors import Embedder, Matrix, pgvector_text
from plume.memory.redacting import RedactingStore
from plume.memory.rights import erase
from plume.memory.sealing.master import master_key
from plume.memory.sealing.rotation import open_to_seal
from plume.memory.store import Store
from plume.redact import Redaction
from plume.types import Message
from stores import admin, fresh_database
from test_erasure import WORDS, found, live, table_files
from test_recall import BAG, SAID, Counting, filled, numbered, texts

Run = Callable[[str], Any]
ROWS = "SELECT count(*) FROM plume_recall_items"


@pytest.fixture
def bare(started: Callable[[str], str], tmp_path: Path) -> Iterator[str]:
    """An empty database whose owner has not created the extension."""
    with fresh_database(started("pgvector"), tmp_path) as url:
        yield url


@pytest.fixture
def url(bare: str) -> str:
    with admin(bare) as run:
        run("CREATE EXTENSION vector")
    return bare


@pytest.fixture
def run(url: str) -> Iterator[Run]:
    with admin(url) as run:
        yield run


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store


def ours(store: Store, embedder: Embedder | None = BAG) -> Recall:
    return Recall(store, embedder, inside="database")


# --- the same as in memory --------------------------------------------------------------------------


def test_the_nearest_are_those_that_memory_finds(store: Store) -> None:
    embedder, reached = numbered(600), store.tenant("alice")
    for first in range(0, 600, 200):
        reached.append(reached.create().id, [Message("user", str(n)) for n in range(first, first + 200)])
    inside, memory = ours(store, embedder), Recall(store, embedder, inside="memory")
    assert (inside.where, memory.where, Recall(store, embedder).where) == ("database", "memory", "database")
    for question in embedder.unit([str(n) for n in range(40)]):
        near, exactly = inside.nearest("alice", question), memory.nearest("alice", question)
        assert texts(near) == texts(exactly)
        assert [one.score for one in near] == pytest.approx([one.score for one in exactly], abs=1e-5)
    assert inside.nearest("alice", np.zeros(32, np.float32)) == ()


def test_filters_fusion_and_positions_are_those_of_memory(store: Store) -> None:
    embedder, reached = numbered(300), store.tenant("alice")
    ids = [reached.create(user=user).id for user in ("zoé", "luc", "zoé")]
    for number, id in enumerate(ids):
        said = [Message("user", str(n)) for n in range(100 * number, 100 * number + 100)]
        reached.append(id, [Message("system", "7"), *said])
    inside, memory = ours(store, embedder), Recall(store, embedder, inside="memory")
    filters: list[dict[str, Any]] = [
        {},
        {"conversation": ids[1]},
        {"user": "zoé"},
        {"user": "zoé", "before": 30},
        {"conversation": ids[0], "user": "luc"},
        {"conversation": "nobody's"},
        {"conversation": "\ud800"},
        {"user": "x" * 300},
        {"before": 2**70},
        {"before": -5},
        {"limit": 0},
        {"limit": 3},
    ]
    for wanted in filters:
        assert inside.search("alice", "7", **wanted) == memory.search("alice", "7", **wanted)
    assert len(inside.search("alice", "7", user="zoé", limit=500)) == 200
    assert inside.positions("alice", ids[0], "7", before=9, limit=1) == (8,)
    assert inside.positions("alice", ids[0], "7", before=8, limit=8) != (8,)


@pytest.mark.parametrize("embedder", [None, BAG], ids=["words", "hybrid"])
def test_words_count_without_case_and_accents_and_nothing_in_a_question_is_syntax(
    store: Store, embedder: Embedder | None
) -> None:
    filled(store)
    recall = ours(store, embedder)
    assert texts(recall.search("alice", "Où est le PHARE ?", limit=1)) == [SAID[0]]
    assert texts(recall.search("alice", "ELODIE prefere", limit=1)) == [SAID[2]]
    assert recall.search("alice", "  ") == ()
    for syntax in ("'", "' | '", "a:*", "!phare", "phare & thé", "<->", "(", "\\", "a\0b", "'; --", ":x", "%s %(a)s"):
        recall.search("alice", syntax)


def test_messages_with_a_word_are_those_of_memory_and_rare_words_count_more(store: Store) -> None:
    filled(store)
    filled(store, said=["phare, brisé", *(f"où est le thé numéro {n}, là où est le sel" for n in range(20))])
    inside, memory = ours(store, None), Recall(store, inside="memory")
    assert {SAID[0], "phare, brisé"} == set(texts(inside.search("alice", "Où est le phare ?", limit=2)))
    for question in ("phare", "the vert", "Où est-il ?", "_thé_", "ÎLOT", "navire"):
        found = texts(inside.search("alice", question, limit=50))
        assert sorted(found) == sorted(texts(memory.search("alice", question, limit=50)))


def test_any_text_can_be_found(store: Store) -> None:
    many = [f"mot{n}" for n in range(60_000)]
    random.Random(0).shuffle(many)
    said = ["x" * 5000, "a\0 b : ' \\ été", "ﬁn ß İ " + "\ufdfa" * 30_000, " ".join(many), "的 " * 90_000, "😀"]
    filled(store, said=said)
    recall = ours(store, None)
    assert texts(recall.search("alice", "ÉTÉ")) == [said[1]]
    assert texts(recall.search("alice", "x" * 5000)) == [said[0]]
    assert texts(recall.search("alice", "fin")) == [said[2]]
    assert texts(recall.search("alice", many[5])) == [said[3]]
    assert len(recall.search("alice", " ".join(many[:200]), limit=3)) == 1


def test_five_digits_say_every_number_of_sixteen_bits(run: Run) -> None:
    every = np.arange(2**16, dtype=np.uint16).view("<f2").astype(np.float32)
    every = every[np.isfinite(every)]
    for part in np.array_split(every, 8):
        ((back,),) = run(f"SELECT '{pgvector_text(part)}'::halfvec::real[]")
        assert np.array_equal(np.array(back, np.float32), part)


# --- what is never found ----------------------------------------------------------------------------


def test_nothing_of_another_tenant_is_found_or_embedded_for_it(store: Store) -> None:
    counting = Counting()
    filled(store, "alice")
    filled(store, "bob", ["Le phare de Bob"])
    recall = ours(store, counting.embedder())
    assert texts(recall.search("bob", "phare bateau thé", limit=50)) == ["Le phare de Bob"]
    assert counting.asked == ["Le phare de Bob", "phare bateau thé"]
    assert "Le phare de Bob" not in texts(recall.search("alice", "phare", limit=50))
    assert "Le phare de Bob" not in texts(recall.nearest("alice", BAG.unit(["Le phare de Bob"])[0], 50))
    assert recall.search("carol", "phare") == ()


def test_what_goes_takes_its_rows_along_whoever_deletes_it(store: Store, url: str, run: Run) -> None:
    reached, recall = store.tenant("alice"), ours(store)
    first, second, third = filled(store, user="zoé"), filled(store), filled(store, said=["Le phare rouge"], user="zoé")
    filled(store, "bob", ["Le phare de Bob"])
    recall.search("alice", "phare")
    recall.search("bob", "phare")
    counts = [run(ROWS)[0][0]]
    reached.remove(first, [reached.read(first).items[1].id])
    counts.append(run(ROWS)[0][0])
    assert len(recall.search("alice", "phare", conversation=first, limit=50)) == 3
    reached.delete(second)
    counts.append(run(ROWS)[0][0])
    parsed, arguments = sql_address(url, "test")
    engine = sqlalchemy.create_engine(parsed, connect_args=arguments)
    with engine.connect() as program:  # that knows nothing of these tables
        program.exec_driver_sql("DELETE FROM plume_items WHERE convert_from(conversation, 'UTF8') = %s", (third,))
        assert program.exec_driver_sql(ROWS).scalar() == counts[-1] - 1
        program.rollback()
        assert program.exec_driver_sql(ROWS).scalar() == counts[-1]
    engine.dispose()
    assert texts(recall.search("alice", "phare rouge", limit=1)) == ["Le phare rouge"]
    reached.erase("zoé")
    counts.append(run(ROWS)[0][0])
    assert counts == [10, 9, 5, 1]
    assert run("SELECT convert_from(tenant, 'UTF8') FROM plume_recall") == [("bob",)]
    assert recall.search("alice", "phare") == ()


def test_what_has_expired_is_not_found_before_any_sweep_and_goes_with_it(url: str, run: Run) -> None:
    now = 1e9
    with open_store(url, clock=lambda: now) as store:
        filled(store, ttl=60, said=["phare"] * 20)
        filled(store, said=["Un phare qui dure"])
        recall = ours(store)
        assert texts(recall.search("alice", "phare", limit=1)) == ["phare"]
        now += 60
        assert texts(recall.search("alice", "phare", limit=1)) == ["Un phare qui dure"]
        assert texts(recall.nearest("alice", BAG.unit(["phare"])[0], 1)) == ["Un phare qui dure"]
        assert run(ROWS) == [(21,)]
        store.sweep()
        assert run(ROWS) == [(1,)]


def test_a_conversation_made_anew_under_the_same_name_is_another(store: Store) -> None:
    reached, recall = store.tenant("alice"), ours(store)
    id = filled(store)
    recall.search("alice", "phare")
    reached.delete(id)
    reached.create(id)
    reached.append(id, [Message("user", "tout autre chose")] * 6)
    assert set(texts(recall.search("alice", "phare autre", limit=50))) == {"tout autre chose"}


def test_what_is_deleted_and_made_anew_while_it_is_embedded_leaves_nothing_of_the_old(store: Store, run: Run) -> None:
    reached, id = store.tenant("alice"), filled(store)

    def embed(asked: Sequence[str]) -> Matrix:
        if SAID[0] in asked:
            reached.delete(id)
            reached.create(id)
            reached.append(id, [Message("user", "neuf")] * 5)
        return BAG.embed(asked)

    recall = ours(store, Embedder("bag", embed))
    assert SAID[0] not in texts(recall.search("alice", SAID[0], limit=50))
    assert run("SELECT count(*) FROM plume_recall_items WHERE words @@ 'phare'") == [(0,)]
    assert set(texts(recall.search("alice", "neuf", limit=50))) == {"neuf"}


def test_no_byte_of_an_erased_person_is_left_in_rows_statistics_and_files(store: Store, url: str, run: Run) -> None:
    live(store)
    recall = ours(store)
    assert len(recall.search("clinique", "coquelicot", limit=50)) == 50
    stored = run("SELECT r::text FROM plume_recall_items r") + run("SELECT r::text FROM plume_recall r")
    assert "coquelicot" in str(stored)
    run("ANALYZE")
    statistics = "SELECT most_common_vals::text, histogram_bounds::text, most_common_elems::text FROM pg_stats"
    assert "coquelicot" not in str(run(f"{statistics} WHERE tablename = 'plume_recall_items'"))
    assert not run("SELECT 1 FROM pg_stats WHERE attname IN ('embedding', 'words')")
    (left,) = erase(store, "clinique", "zoé-martin").left
    stored = run("SELECT r::text FROM plume_recall_items r") + run("SELECT r::text FROM plume_recall r")
    assert not [word for word in WORDS if word.decode() in str(stored) or word.hex() in str(stored)]
    assert "plume_recall_items" in left
    for statement in left.partition(":")[0].split(", then "):
        run(statement)
    files = table_files(run, url)
    assert found(files) == set()
    assert len(recall.search("clinique", "chardon", limit=50)) == 33


# --- following the store ----------------------------------------------------------------------------


def test_vectors_of_the_messages_are_brought_over_and_new_ones_kept_with_them(store: Store, url: str) -> None:
    counting = Counting()
    id = filled(store, said=[f"phare {n}" for n in range(600)])
    Recall(store, counting.embedder(), inside="memory").search("alice", "phare")
    counting.asked.clear()
    recall = ours(store, counting.embedder())
    assert texts(recall.search("alice", "phare 7", limit=1)) == ["phare 7"]
    with open_store(url) as elsewhere:
        elsewhere.tenant("alice").append(id, [Message("assistant", "Bon voyage")])
    assert "Bon voyage" in texts(recall.search("alice", "voyage"))
    assert counting.asked == ["phare 7", "Bon voyage", "voyage"]
    counting.asked.clear()
    Recall(store, counting.embedder(), inside="memory").search("alice", "phare")
    assert counting.asked == ["phare"]


def test_vectors_of_another_model_are_not_compared_but_computed_anew(store: Store, run: Run) -> None:
    def narrow(asked: Sequence[str]) -> Matrix:
        return BAG.embed(asked)[:, :8] + 1

    id = filled(store)
    first, second = ours(store), ours(store, Embedder("narrow", narrow))
    assert len(first.nearest("alice", BAG.unit([SAID[0]])[0])) == 4
    assert run("SELECT DISTINCT vector_dims(embedding) FROM plume_recall_items") == [(64,)]
    question = Embedder("narrow", narrow).unit([SAID[0]])[0]
    assert len(second.nearest("alice", question)) == 4
    assert run("SELECT DISTINCT vector_dims(embedding) FROM plume_recall_items") == [(8,)]
    with pytest.raises(UserError, match="a vector of"):
        second.nearest("alice", np.ones(3, np.float32))
    store.tenant("alice").append(id, [Message("user", "sans vecteur")])
    assert texts(ours(store, None).search("alice", "sans")) == ["sans vecteur"]
    assert run("SELECT count(*) FROM plume_recall_items WHERE embedding IS NULL") == [(1,)]
    assert len(second.nearest("alice", question)) == 5


def test_vectors_that_another_program_makes_of_its_model_meanwhile_are_not_compared(store: Store) -> None:
    filled(store)

    def embed(asked: Sequence[str]) -> Matrix:
        if asked == ["bateau"]:  # the messages have been followed
            ours(store).search("alice", "bateau")
        return BAG.embed(asked)[:, :8] + 1

    assert texts(ours(store, Embedder("narrow", embed)).search("alice", "bateau", limit=50)) == [SAID[1]]


def test_what_was_read_is_not_kept_once_the_conversation_is_another_or_somebody_has_followed_it(
    store: Store, run: Run
) -> None:
    reached, tables, id = store.tenant("alice"), store.search_tables(), filled(store)
    (behind,), read, entry = tables.behind("alice", None), reached.read(id), Entry(1, ["phare"], None)
    reached.delete(id)
    reached.create(id)
    reached.append(id, [Message("user", "neuf")] * 3)
    assert not tables.follow("alice", read, behind, behind._replace(head=5), [entry])
    read = reached.read(id)
    assert tables.follow("alice", read, behind, behind._replace(head=3), [entry])
    assert not tables.follow("alice", read, behind, behind._replace(head=2), [Entry(2, ["bateau"], None)])
    assert run("SELECT position, words::text FROM plume_recall_items") == [(1, "'phare':1")]
    assert run("SELECT head FROM plume_recall") == [(3,)]
    assert tables.behind("alice", None) == []


def test_writers_and_searchers_at_once_keep_every_message_once(url: str, run: Run) -> None:
    with open_store(url) as store:
        ids = [filled(store, said=[]) for _ in range(3)]
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                with open_store(url) as mine:
                    recall = ours(mine)
                    for turn in range(15):
                        mine.tenant("alice").append(ids[turn % 3], [Message("user", f"phare {number} {turn}")])
                        assert texts(recall.search("alice", f"{number} {turn} phare", limit=50))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        said = {f"phare {number} {turn}" for number in range(3) for turn in range(15)}
        assert set(texts(ours(store).search("alice", "phare", limit=100))) == said
        assert run(ROWS) == [(45,)]


# --- where it cannot be -----------------------------------------------------------------------------


def test_without_the_extension_it_is_refused_and_memory_is_searched(bare: str) -> None:
    with open_store(bare) as store, admin(bare) as run:
        filled(store)
        with pytest.raises(UserError, match="no pgvector") as caught:
            ours(store)
        assert "CREATE EXTENSION vector" in str(caught.value.hint)
        assert Recall(store, BAG).where == "memory"
        assert texts(Recall(store, BAG).search("alice", "phare", limit=1)) == [SAID[0]]
        assert run("SELECT to_regclass('plume_recall')") == [(None,)]
        run("CREATE EXTENSION vector")
        assert Recall(store, BAG).where == "database"


def test_other_stores_refuse(started: Callable[[str], str], tmp_path: Path) -> None:
    for url in ("memory:", f"sqlite:///{tmp_path}/plume.db", started("redis"), started("mysql")):
        with open_store(url) as store:
            with pytest.raises(UserError, match="only PostgreSQL") as caught:
                ours(store)
            assert "memory" in str(caught.value.hint)
            assert Recall(store, BAG).where == "memory"


def test_a_sealed_store_is_searched_in_memory_and_one_that_becomes_sealed_loses_the_plain_tables(
    url: str, run: Run
) -> None:
    with open_store(url) as store:
        filled(store)
        ours(store).search("alice", "phare")
    assert "phare" in str(run("SELECT words::text FROM plume_recall_items"))
    keys = [master_key(bytes(range(32)))]
    with open_to_seal(url, keys) as store:
        with pytest.raises(UserError, match="sealed"):
            ours(store)
        assert run("SELECT to_regclass('plume_recall'), to_regclass('plume_recall_items')") == [(None, None)]
        recall = Recall(store, BAG)
        assert recall.where == "memory"
        assert texts(recall.search("alice", "phare", limit=1)) == [SAID[0]]


def test_who_may_not_make_the_tables_is_told_and_searches_in_memory(url: str, run: Run) -> None:
    with open_store(url) as store:
        filled(store)
    role = f"reader_{url.rpartition('_')[2]}"
    run(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        with open_store("postgresql://" + f"{role}:secret@" + url.rpartition("@")[2]) as store:
            with pytest.raises(UserError, match="may not make the tables"):
                ours(store)
            assert texts(Recall(store, BAG).search("alice", "phare", limit=1)) == [SAID[0]]
    finally:
        run(f"DROP OWNED BY {role}")
        run(f"DROP ROLE {role}")


def test_a_door_that_redacts_is_searched_inside_with_its_marks(store: Store) -> None:
    door = RedactingStore(store, Redaction(), bytes(32))
    filled(door, said=["Le phare : ecrire a zoe@example.org", "Le bateau"])
    recall = ours(door, None)
    assert "zoe" not in texts(recall.search("alice", "phare"))[0]
    assert recall.search("alice", "zoe") == ()


def test_the_tables_may_be_dropped_and_are_made_anew(store: Store, run: Run) -> None:
    filled(store)
    ours(store).search("alice", "phare")
    run("DROP TABLE plume_recall, plume_recall_items")
    store.tenant("alice").append(store.tenant("alice").conversations()[0].id, [Message("user", "encore un phare")])
    counting = Counting()
    assert "encore un phare" in texts(ours(store, counting.embedder()).search("alice", "phare"))
    assert counting.asked == ["encore un phare", "phare"]
