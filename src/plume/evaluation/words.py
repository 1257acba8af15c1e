"""What scores are called on a page, and what they mean."""

from __future__ import annotations

KINDS = {"held_out": "held-out", "recall": "recall"}
METRICS = {
    "exact_match": ("Exact match", "Answers that are the expected text, to the letter, and stop there."),
    "token_f1": ("Word overlap (F1)", "Words shared with the expected text, so that nearly right answers count too."),
    "json_valid": ("JSON valid", "Answers that parse as JSON, where JSON is expected."),
    "schema_valid": ("Schema valid", "Answers that fit the JSON Schema."),
    "stop_rate": ("Stop rate", "Answers that end by themselves instead of being cut off."),
    "perplexity": ("Perplexity", "Tokens it hesitates between at each step of the text. Lower is better, 1 best."),
    "bits_per_byte": (
        "Bits per byte",
        "Surprise at each byte of the expected text, whatever the tokenizer. Lower is better.",
    ),
    "loss": ("Loss", "What training lowers: the logarithm of perplexity, in nats per token."),
}
RATES = frozenset({"exact_match", "token_f1", "json_valid", "schema_valid", "stop_rate"})
