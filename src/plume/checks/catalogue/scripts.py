"""D7: other people's training scripts."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D701": Entry(
        "the collator overwrites the labels",
        "error",
        "the labels that were made with care are thrown away, so what is trained is the input, prompt included or "
        "prompt alone; with the prompt for labels a model that otherwise gives 100 % of its answers gave 0 %",
        "use a collator that keeps labels, such as DataCollatorForSeq2Seq",
    ),
    "D702": Entry(
        "labels of another text than the inputs",
        "error",
        "position by position labels and inputs have nothing to do with each other; a real user's run with such "
        "labels ended at a loss of 0.19 and 0 % right answers",
        "tokenise prompt and answer as one text, and put -100 over the prompt",
    ),
    "D703": Entry(
        "end token masked as padding",
        "error",
        "the end is never learnt: every answer was in the output, none stopped, 0 % were exact",
        "give padding its own token, or mask by attention_mask",
    ),
    "D704": Entry(
        "padding counted in the loss",
        "error",
        "the loss counts tokens that mean nothing and looks far better than it is; the model still learns, more slowly",
        "set labels to -100 where attention_mask is 0",
    ),
    "D705": Entry(
        "every row padded to the limit",
        "warning",
        "padding short rows to 512 tokens took one step from 0.036 s to 0.735 s for the same loss",
        "let the collator pad to the longest row of the batch",
    ),
    "D706": Entry(
        "evaluation set is the training set",
        "warning",
        "the score shows memory, not learning: rows that stood in training scored 83 %, unseen ones 7 %",
        "hold rows out before training",
    ),
    "D707": Entry(
        "asked otherwise than trained",
        "error",
        "a question asked without the role marker that it was trained with: 0 % right answers, where the trained "
        "form gives 100 %",
        "ask with the very text of the training rows, up to where the answer begins",
    ),
    "D708": Entry(
        "added tokens unused, without embeddings, or unknown to generate()",
        "warning",
        "an id without an embedding stops training with an index error; an end token that generate() does not know "
        "never ends an answer",
        "resize the embeddings, write the tokens into the rows, set generation_config.eos_token_id",
    ),
    "D709": Entry(
        "generation settings without effect or against the answers",
        "error or warning",
        "without do_sample the answers for temperatures 0.7, 5.0 and none are identical; no_repeat_ngram_size=2 "
        "made 56 % of JSON answers impossible; max_length=50 with the prompt counted took 100 % to 78 %",
        "set do_sample=True or drop the settings, drop no_repeat_ngram_size, use max_new_tokens",
    ),
    "D710": Entry(
        "two trainers on one model",
        "error",
        "the second starts where the first ended (measured: 24.7 away from the weights that were loaded), so "
        "neither comparison nor second model is what it seems",
        "load the model anew for each trainer",
    ),
    "D711": Entry(
        "name that does not exist today",
        "warning",
        "the script stops with an error, or was never run; checked against transformers 5.23, trl 1.16, datasets "
        "5.2, peft 0.21 and openai 3.52",
        "write today's name",
    ),
    "D712": Entry(
        "no loss possible",
        "error",
        "without labels, or without a language-model head, a model returns no loss and training stops or learns "
        "nothing",
        "use AutoModelForCausalLM and a collator that makes labels",
    ),
    "D713": Entry(
        "padding without a padding token",
        "error",
        "transformers stops with “Asking to pad but the tokenizer does not have a padding token”",
        "add a padding token of its own and resize the embeddings",
    ),
    "D714": Entry(
        "code from a file or hub, or a key in the source",
        "warning",
        "pickle files and remote code run whatever their author put into them; a key in a script is anyone's",
        "use safetensors and JSON lines, name a revision, read keys from the environment",
    ),
    "D715": Entry(
        "no seed, or answers never read",
        "warning",
        "chance differences between runs look like progress, and a loss of 0.19 stood beside 0 % right answers",
        "set a seed, and compare generated answers with expected ones",
    ),
    "D716": Entry(
        "conversation grows without bound",
        "warning",
        "beyond the model's window answers break, and a context that all callers share mixes their conversations",
        "keep the last turns only, one list a conversation",
    ),
    "D717": Entry(
        "output directory shared, or loaded and never saved",
        "warning",
        "a later run overwrites the checkpoints of an earlier one; a Trainer alone writes no model that can be "
        "loaded from its output directory",
        "one directory a run; call save_model() before loading",
    ),
    "D718": Entry(
        "broken or unfinished code",
        "error or warning",
        "Python stops, or the model is given something that is not ids; a file opened without encoding= reads "
        "accents differently on another system",
        "correct the line named",
    ),
}
