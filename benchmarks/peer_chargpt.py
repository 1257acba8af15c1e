"""The peer of shakespeare.py: a plain GPT in PyTorch with nanoGPT's documented settings for a CPU.

    python benchmarks/peer_chargpt.py DATA FOLDER EVERY THREADS

Four layers of width 128, four heads, 64 characters of context; LayerNorm, GELU, learnt positions, tied head.
2,000 batches of 12 windows drawn at random, AdamW at 1e-3 with 100 steps of warm-up and a cosine to 1e-4.
Saves its weights every EVERY steps and prints {"step", "cpu_seconds", "weights"}.
Shape suffixes: B batch, T time, C width, H heads, D head width, V vocabulary.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

STEPS, WARMUP, PEAK, END = 2000, 100, 1e-3, 1e-4
BATCH, BLOCK, WIDTH, LAYERS, HEADS = 12, 64, 128, 4, 4
DECAY, BETAS, CLIP, SEED = 0.1, (0.9, 0.99), 1.0, 1337


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_mix = nn.LayerNorm(WIDTH, bias=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.mixed = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm_mlp = nn.LayerNorm(WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        batch, count, _ = x_BTC.shape
        heads = (batch, count, HEADS, WIDTH // HEADS)
        q, k, v = (part.view(heads).transpose(1, 2) for part in self.qkv(self.norm_mix(x_BTC)).split(WIDTH, dim=2))
        mixed_BHTD = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTC = x_BTC + self.mixed(mixed_BHTD.transpose(1, 2).reshape(batch, count, WIDTH))
        grown_BTC: Tensor = self.down(F.gelu(self.up(self.norm_mlp(x_BTC))))
        return x_BTC + grown_BTC


class CharGPT(nn.Module):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, WIDTH)
        self.positions = nn.Embedding(BLOCK, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                into_residual = name.endswith(("mixed.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if into_residual else 0.02)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        x_BTC = self.tokens(ids_BT) + self.positions.weight[: ids_BT.shape[1]]
        for block in self.blocks:
            x_BTC = block(x_BTC)
        return F.linear(self.norm(x_BTC), self.tokens.weight)


def read(data: Path) -> tuple[Tensor, Tensor, int]:
    """Ids of the first nine tenths of a text and of the rest, and how many characters it knows."""
    text = data.read_text(encoding="utf-8")
    known = {character: id for id, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([known[character] for character in text])
    cut = round(len(ids) * 0.9)
    return ids[:cut], ids[cut:], len(known)


def rate(step: int) -> float:
    """The learning rate of a 0-based step."""
    if step < WARMUP:
        return PEAK * (step + 1) / (WARMUP + 1)
    return END + (PEAK - END) * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def main() -> None:
    data, folder, every, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    ids, _, vocab_size = read(data)
    model = CharGPT(vocab_size)
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=BETAS)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        starts = torch.randint(len(ids) - BLOCK, (BATCH,))
        windows = torch.stack([ids[start : start + BLOCK + 1] for start in starts])
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % every == 0:
            spent = time.process_time()
            weights = folder / f"step-{step + 1:06d}.safetensors"
            save_file(model.state_dict(), weights)
            print(json.dumps({"step": step + 1, "cpu_seconds": spent, "weights": str(weights)}), flush=True)


if __name__ == "__main__":
    main()
