"""Recall: what is found, what is never found, and how the index follows the store."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plume.errors import PlumeError, UserError
from plume.generation.embedder import model_embedder, sentence_embedder
from plume.memory import open_store
from plume.memory.recall import approximate
from plume.memory.recall.memory import Kept, Memory
from plume.memory.recall.search import Found, Recall
from plume.memory.recall.vectors import Embedder, Matrix, vector_bytes, vector_of
from plume.memory.sealing.master import master_key
from plume.memory.store import Store
from plume.types import Message
from serving import caller, untrained

WIDTH = 64


def bag(texts: Sequence[str]) -> Matrix:
    """Words thrown into a few slots: alike texts have alike vectors."""
    rows = np.zeros((len(texts), WIDTH), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.casefold().split():
            row[hash_of(word)] += 1
    return rows


def hash_of(word: str) -> int:
    return sum(place * ord(sign) for place, sign in enumerate(word, 1)) % WIDTH


class Counting:
    """An embedder that says how many texts it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embedder(self, model: str = "bag") -> Embedder:
        def embed(texts: Sequence[str]) -> Matrix:
            self.asked += texts
            return bag(texts)

        return Embedder(model, embed)


BAG = Embedder("bag", bag)
SAID = ["Le phare est sur l’îlot", "Le bateau part à midi", "Élodie préfère le thé vert", "Il pleut sur Brest"]


def filled(store: Store, tenant: str = "alice", said: Sequence[str] = SAID, **options: object) -> str:
    reached = store.tenant(tenant)
    id = reached.create(**options).id  # type: ignore[arg-type]
    reached.append(id, [Message("system", "phare bateau thé"), *(Message("user", text) for text in said)])
    return id


def texts(found: Sequence[Found]) -> list[str]:
    return [one.item.message.content for one in found]


def kept(recall: Recall) -> Kept:
    assert isinstance(recall.index, Memory)
    return recall.index.kept("alice")


@pytest.mark.parametrize("embedder", [None, BAG], ids=["words", "hybrid"])
def test_what_belongs_to_a_question_comes_first(embedder: Embedder | None) -> None:
    with open_store("memory:") as store:
        id = filled(store)
        recall = Recall(store, embedder)
        found = recall.search("alice", "Où est le PHARE ?", limit=2)
        assert texts(found)[0] == SAID[0]
        assert (found[0].conversation, found[0].item.position) == (id, 1)
        assert texts(recall.search("alice", "elodie the", limit=1)) == [SAID[2]]
        assert recall.search("alice", "phare", limit=0) == ()
        assert recall.search("alice", "  ") == ()
        for syntax in ('"', "AND OR NOT", "phare*", "text:phare", "NEAR(phare)", "^phare", "(", "a\0b", "'; --"):
            recall.search("alice", syntax)


def test_meaning_finds_what_words_do_not() -> None:
    near = {"navire": [1.0, 0.1], "bateau": [0.9, 0.2], "thé": [0.0, 1.0]}

    def embed(asked: Sequence[str]) -> Matrix:
        return np.array([near[text] for text in asked], np.float32)

    with open_store("memory:") as store:
        filled(store, said=["thé", "bateau"])
        assert texts(Recall(store, Embedder("m", embed)).search("alice", "navire", limit=1)) == ["bateau"]
        assert Recall(store).search("alice", "navire") == ()


def test_filters_and_positions() -> None:
    with open_store("memory:") as store:
        first, second = filled(store, user="zoé"), filled(store, said=["Le phare de Brest"], user="luc")
        recall = Recall(store, BAG)
        assert {one.conversation for one in recall.search("alice", "phare Brest")} == {first, second}
        assert {one.conversation for one in recall.search("alice", "phare Brest", conversation=first)} == {first}
        assert {one.conversation for one in recall.search("alice", "phare Brest", user="luc")} == {second}
        assert recall.search("alice", "phare", conversation=first, user="luc") == ()
        assert recall.search("alice", "phare", conversation="nobody's") == ()
        assert recall.positions("alice", first, "Brest pleut", before=4, limit=1) != (4,)
        assert recall.positions("alice", first, "Brest pleut", before=5, limit=1) == (4,)


def test_nothing_of_another_tenant_is_found_or_embedded_for_it() -> None:
    counting = Counting()
    with open_store("memory:") as store:
        filled(store, "alice")
        filled(store, "bob", ["Le phare de Bob"])
        recall = Recall(store, counting.embedder())
        assert texts(recall.search("bob", "phare bateau thé", limit=50)) == ["Le phare de Bob"]
        assert counting.asked == ["Le phare de Bob", "phare bateau thé"]
        assert "Le phare de Bob" not in texts(recall.search("alice", "phare", limit=50))
        assert recall.search("carol", "phare") == ()


def test_vectors_are_kept_with_the_messages_and_computed_once(tmp_path: Path) -> None:
    url, counting = f"sqlite:///{tmp_path}/plume.db", Counting()
    with open_store(url) as store:
        id = filled(store)
        Recall(store, counting.embedder()).search("alice", "phare")
        assert counting.asked == [*SAID, "phare"]
        raw = store.tenant("alice").vectors(id)
        assert sorted(raw) == [1, 2, 3, 4]
        assert vector_of("bag", raw[1]) == pytest.approx(BAG.unit([SAID[0]])[0])
    counting.asked.clear()
    with open_store(url) as store:
        recall = Recall(store, counting.embedder())
        recall.search("alice", "thé")
        store.tenant("alice").append(id, [Message("assistant", "Bon voyage")])
        assert "Bon voyage" in texts(recall.search("alice", "voyage"))
        assert counting.asked == ["thé", "Bon voyage", "voyage"]
        counting.asked.clear()
        Recall(store, counting.embedder("another model")).search("alice", "thé")
        assert counting.asked == [*SAID, "Bon voyage", "thé"]


def test_what_was_taken_out_deleted_or_made_anew_is_not_found_although_it_was_in_memory() -> None:
    with open_store("memory:") as store:
        reached, recall = store.tenant("alice"), Recall(store, BAG)
        id, other = filled(store), filled(store, said=["Le phare rouge"])
        assert len(recall.search("alice", "phare")) == 5
        reached.remove(id, [reached.read(id).items[1].id])
        assert SAID[0] not in texts(recall.search("alice", "phare est sur l’îlot", limit=50))
        reached.append(id, [Message("user", "Un phare de plus")])
        assert "Un phare de plus" in texts(recall.search("alice", "phare"))
        reached.delete(other)
        assert "Le phare rouge" not in texts(recall.search("alice", "phare rouge", limit=50))
        reached.delete(id)
        reached.create(id)
        reached.append(id, [Message("user", "tout autre chose")] * 6)
        assert set(texts(recall.search("alice", "phare autre", limit=50))) == {"tout autre chose"}


def test_what_has_expired_is_not_found_before_any_sweep() -> None:
    now = 1e9
    with open_store("memory:", clock=lambda: now) as store:
        filled(store, ttl=60)
        lasting = filled(store, said=["Un phare qui dure"])
        recall = Recall(store, BAG)
        assert len(recall.search("alice", "phare")) == 5
        now += 60
        assert {one.conversation for one in recall.search("alice", "phare", limit=50)} == {lasting}


ERASE = """
import sys
from plume.memory import open_store
with open_store(sys.argv[1]) as store:
    store.tenant("alice").delete(sys.argv[2])
"""


def test_what_another_process_deletes_or_adds_is_followed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plume.db"
    with open_store(url) as store, open_store(url) as elsewhere:
        gone, kept = filled(store), filled(store, said=["Le phare reste"])
        recall = Recall(store, BAG)
        assert len(recall.search("alice", "phare")) == 5
        subprocess.run([sys.executable, "-c", ERASE, url, gone], check=True, env=os.environ)
        assert {one.conversation for one in recall.search("alice", "phare", limit=50)} == {kept}
        elsewhere.tenant("alice").append(kept, [Message("user", "Un phare nouveau")])
        assert "Un phare nouveau" in texts(recall.search("alice", "phare"))


def test_recall_works_the_same_on_a_sealed_store_and_leaves_nothing_plain(tmp_path: Path) -> None:
    url, keys = f"sqlite:///{tmp_path}/plume.db", [master_key(bytes(range(32)))]
    with open_store(url, keys=keys) as store:
        filled(store)
        assert texts(Recall(store, BAG).search("alice", "Où est le phare", limit=1)) == [SAID[0]]
    with open_store(url, keys=keys) as store:
        counting = Counting()
        assert texts(Recall(store, counting.embedder()).search("alice", "thé vert", limit=1)) == [SAID[2]]
        assert counting.asked == ["thé vert"]
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for plain in (b"phare", vector_bytes("bag", BAG.unit([SAID[0]])[0]), b"\x02\x00\x03bag"):
        assert plain not in raw


def test_a_message_that_goes_between_search_and_reading_is_not_given() -> None:
    with open_store("memory:") as store:
        id = filled(store)
        recall = Recall(store, BAG)
        recall.search("alice", "phare")

        def embed(asked: Sequence[str]) -> Matrix:
            reached = store.tenant("alice")
            if id in {one.id for one in reached.conversations()}:
                reached.delete(id)
            return bag(asked)

        late = Recall(store, Embedder("bag", embed))
        assert late.search("alice", "phare") == ()


def test_many_deletions_close_the_gaps() -> None:
    with open_store("memory:") as store:
        reached, recall = store.tenant("alice"), Recall(store, BAG)
        gone = filled(store, said=[f"phare numéro {n}" for n in range(1500)])
        other = filled(store, said=[f"bateau numéro {n}" for n in range(300)])
        assert len(recall.search("alice", "phare", limit=5)) == 5
        reached.delete(gone)
        found = recall.search("alice", "numéro 7 phare", limit=5)
        assert {one.conversation for one in found} == {other}
        assert "bateau numéro 7" in texts(found)
        corpus = kept(recall).corpus
        assert (len(corpus.matrix), corpus.packed) == (300, 1)
        reached.append(other, [Message("user", "bateau tout neuf")])
        assert texts(recall.search("alice", "tout neuf", limit=1)) == ["bateau tout neuf"]


def test_exact_search_is_numpys_answer() -> None:
    random = np.random.default_rng(0)
    matrix = random.standard_normal((500, 16)).astype(np.float32)
    question = random.standard_normal(16).astype(np.float32)
    order = np.argsort(-(matrix @ question), kind="stable")
    assert approximate.exact(matrix, question, 10).tolist() == order[:10].tolist()
    assert approximate.exact(matrix, question, 1000).tolist() == order.tolist()
    without = approximate.exact(matrix, question, 10, order[:3])
    assert without.tolist() == order[3:13].tolist()


def numbered(count: int, width: int = 32) -> Embedder:
    """Texts are numbers, each with a vector drawn for it."""
    drawn = np.random.default_rng(1).standard_normal((count + 1000, width)).astype(np.float32)
    return Embedder("numbered", lambda asked: drawn[[int(text) for text in asked]])


def test_the_approximate_index_passes_the_gate_and_follows_the_store() -> None:
    pytest.importorskip("usearch")
    embedder = numbered(3000)
    with open_store("memory:") as store:
        reached = store.tenant("alice")
        ids = [reached.create().id for _ in range(3)]
        for number, id in enumerate(ids):
            reached.append(id, [Message("user", str(n)) for n in range(1000 * number, 1000 * number + 1000)])
        close, sure = Recall(store, embedder, approximate_above=1000), Recall(store, embedder)
        close.search("alice", "5")
        mine = kept(close)
        mine.builder.wait()
        made = mine.builder.ready(mine.corpus.matrix, mine.corpus.packed)
        assert made is not None
        assert (made.rows, made.recall >= approximate.GATE) == (3000, True)
        reached.append(ids[0], [Message("user", "3100")])  # behind the index: searched exactly
        reached.delete(ids[1])
        shared = 0
        for number in (*range(0, 50), 3100):
            question = embedder.unit([str(number)])[0]
            near, exactly = (texts(recall.nearest("alice", question)) for recall in (close, sure))
            assert near[0] == exactly[0] == str(number)
            assert not any(1000 <= int(text) < 2000 for text in near)
            shared += len(set(near) & set(exactly))
        assert mine.builder.ready(mine.corpus.matrix, mine.corpus.packed) is made
        assert shared / 510 >= approximate.GATE


def test_an_index_below_the_gate_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch")
    monkeypatch.setattr(approximate, "GATE", 1.01)
    random = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    assert approximate.build(random) is None
    with open_store("memory:") as store:
        filled(store, said=[str(n) for n in range(200)])
        recall = Recall(store, numbered(200), approximate_above=100)
        recall.search("alice", "5")
        kept(recall).builder.wait()
        assert texts(recall.search("alice", "5", limit=1)) == ["5"]


def test_many_threads_find_the_same() -> None:
    with open_store("memory:") as store:
        ids = [filled(store) for _ in range(4)]
        recall, found = Recall(store, BAG), []

        def work(number: int) -> None:
            store.tenant("alice").append(ids[number], [Message("user", f"phare {number}")])
            found.append(texts(recall.search("alice", f"phare {number}", limit=1)))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [[f"phare {number}"] for number in range(4)]


def test_what_is_no_vector_is_refused() -> None:
    with open_store("memory:") as store:
        filled(store)
        wrong = Embedder("wrong", lambda asked: np.full((len(asked), 3), np.nan, np.float32))
        with pytest.raises(PlumeError, match="no number"):
            Recall(store, wrong).search("alice", "phare")
        recall = Recall(store, BAG)
        recall.search("alice", "phare")
        with pytest.raises(UserError, match="for messages of"):
            recall.nearest("alice", np.ones(3, np.float32))
    assert vector_of("bag", b"{}") is None
    assert vector_of("other", vector_bytes("bag", np.ones(3, np.float32))) is None


def test_a_loaded_model_gives_vectors_for_recall() -> None:
    embedder = model_embedder(untrained())
    assert embedder.model == model_embedder(untrained()).model != model_embedder(caller()).model
    rows = embedder.unit(["Où est le phare ?", "", "Le bateau " * 2000, "Où est le phare ?"])
    assert rows.shape == (4, 32)
    assert rows[0] == pytest.approx(rows[3], abs=1e-3)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(4), abs=1e-2)
    with open_store("memory:") as store:
        filled(store)
        assert texts(Recall(store, embedder).search("alice", SAID[3], limit=1)) == [SAID[3]]


def test_a_directory_without_a_model_of_sentence_transformers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no model"):
        sentence_embedder(tmp_path)


def test_a_model_of_sentence_transformers_gives_vectors(tmp_path: Path) -> None:
    parts = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast  # type: ignore[attr-defined]

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "phare", "bateau"]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertModel(BertConfig(vocab_size=7, **sizes)).save_pretrained(tmp_path / "bert")
    reader = parts.Transformer(str(tmp_path / "bert"))
    SentenceTransformer(modules=[reader, parts.Pooling(16)], device="cpu").save(str(tmp_path / "model"))
    embedder = sentence_embedder(tmp_path / "model")
    rows = embedder.unit(["phare", "bateau", "phare"])
    assert rows.shape == (3, 16)
    assert rows[0] == pytest.approx(rows[2], abs=1e-3)
