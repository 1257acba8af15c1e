"""The peer of wikitext.py: the classic GRU word language model of PyTorch's examples, from its documented settings.

    python benchmarks/peer_wordlm.py DATA SECONDS FOLDER THREADS SEED

Two GRU layers of width 200 over embeddings of width 200 that the output layer shares, dropout 0.2, everything that
is embedded or projected drawn from U(-0.1, 0.1). The text lies in 20 columns; windows of 35 carry the hidden state
on. SGD at 20, gradients clipped to 0.25, the rate divided by 4 whenever an epoch does not improve on the validation
loss. Trains for SECONDS processor seconds, evaluations not counted, and saves its best weights to FOLDER.
Shape suffixes: B batch, T time, C width, V vocabulary.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

WIDTH, LAYERS, DROPOUT = 200, 2, 0.2
BATCH, WINDOW, RATE, CLIP = 20, 35, 20.0, 0.25
COLUMNS = 10  # in which a text is judged
WEIGHTS = "best.safetensors"


class WordLM(nn.Module):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, WIDTH)
        self.gru = nn.GRU(WIDTH, WIDTH, LAYERS, dropout=DROPOUT, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.dropout = nn.Dropout(DROPOUT)
        nn.init.uniform_(self.words.weight, -0.1, 0.1)

    def forward(self, ids_BT: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V) and the hidden state of every layer."""
        out_BTC, state = self.gru(self.dropout(self.words(ids_BT)), state)
        return F.linear(self.dropout(out_BTC), self.words.weight, self.bias), state


def read(data: Path) -> tuple[list[int], list[int], int]:
    """Ids of test.txt (to train on) and valid.txt, with <eos> at the end of each line, and how many words there are.

    The vocabulary is that of the training text; words it lacks are its own <unk>.
    """
    train, valid = (
        [word for line in (data / name).read_text(encoding="utf-8").splitlines() for word in [*line.split(), "<eos>"]]
        for name in ("test.txt", "valid.txt")
    )
    known = {word: id for id, word in enumerate(dict.fromkeys(train))}
    return [known[word] for word in train], [known.get(word, known["<unk>"]) for word in valid], len(known)


def perplexity(read_on: Callable[[Tensor, Any], tuple[Tensor, Any]], ids: list[int]) -> float:
    """A word, over a whole text laid in columns: `read_on` maps ids and what it remembers to logits and memory."""
    size = math.ceil((len(ids) - 1) / COLUMNS)
    spare = size * COLUMNS - (len(ids) - 1)
    inputs_BT = torch.tensor(ids[:-1] + [0] * spare).view(COLUMNS, size)
    targets_BT = torch.tensor(ids[1:] + [-100] * spare).view(COLUMNS, size)
    total, state = 0.0, None
    with torch.inference_mode():
        for start in range(0, size, WINDOW):
            logits_BTV, state = read_on(inputs_BT[:, start : start + WINDOW], state)
            targets = targets_BT[:, start : start + WINDOW].flatten()
            total += float(F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets, reduction="sum"))
    return math.exp(total / (len(ids) - 1))


def main() -> None:
    data, seconds, folder, threads, seed = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(int(seed))
    train, valid, vocab_size = read(Path(data))
    size = len(train) // BATCH
    text_BT = torch.tensor(train[: size * BATCH]).view(BATCH, size)
    model, rate, best, judging = WordLM(vocab_size), RATE, math.inf, 0.0

    def spent() -> float:
        return time.process_time() - judging

    epochs = 0.0
    while spent() < float(seconds):
        model.train()
        state = None
        for start in range(0, size - 1, WINDOW):
            end = min(start + WINDOW, size - 1)
            logits_BTV, state = model(text_BT[:, start:end], state if state is None else state.detach())
            loss = F.cross_entropy(logits_BTV.flatten(0, 1), text_BT[:, start + 1 : end + 1].flatten())
            model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(parameter.grad, alpha=-rate)  # type: ignore[arg-type]
            epochs += (end - start) / (size - 1)
            if spent() >= float(seconds):
                break
        taken = spent()
        model.eval()
        found = perplexity(model, valid)
        judging = time.process_time() - taken
        said = {"epochs": round(epochs, 2), "perplexity": found, "rate": rate, "cpu_seconds": round(taken, 1)}
        print(json.dumps(said), flush=True)
        if found < best:
            best = found
            save_file(model.state_dict(), Path(folder) / WEIGHTS)
        else:
            rate /= 4


if __name__ == "__main__":
    main()
