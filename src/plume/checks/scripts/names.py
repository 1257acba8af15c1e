"""D711: names that were removed or never existed, each with what to write today.

Checked against transformers 5.23, trl 1.16, datasets 5.2, peft 0.21 and openai 3.52.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from plume.checks.scripts.facts import Call, Facts
from plume.checks.scripts.rules import Found, rule
from plume.checks.scripts.subjects import (
    ARGUMENTS,
    HF_TRAINERS,
    TRL_TRAINERS,
    generations,
    is_tokenizer,
    own_trainers,
    tokenized,
)

REMOVED: dict[str, str] = {
    "transformers.AdamW": "torch.optim.AdamW",
    "transformers.TextDataset": "datasets.load_dataset and tokenizer in dataset.map",
    "transformers.LineByLineTextDataset": "datasets.load_dataset('text', …) and tokenizer in dataset.map",
    "transformers.LineByLineWithRefDataset": "datasets.load_dataset and tokenizer in dataset.map",
    "transformers.DistilGPT2Tokenizer": "AutoTokenizer (it never existed; DistilGPT-2 uses GPT-2's tokenizer)",
    "transformers.DistilGPT2LMHeadModel": "AutoModelForCausalLM (it never existed; DistilGPT-2 is a GPT2LMHeadModel)",
    "transformers.AutoModelWithLMHead": "AutoModelForCausalLM",
    "transformers.TFAutoModelForCausalLM": "AutoModelForCausalLM (TensorFlow is no longer supported)",
    "transformers.TFGPT2LMHeadModel": "GPT2LMHeadModel (TensorFlow is no longer supported)",
    "transformers.TFTrainer": "Trainer (TensorFlow is no longer supported)",
    "transformers.Conversation": "a list of messages and tokenizer.apply_chat_template",
    "transformers.ConversationalPipeline": "pipeline('text-generation') with a list of messages",
    "transformers.Text2TextGenerationPipeline": "AutoModelForSeq2SeqLM and its generate()",
    "transformers.SummarizationPipeline": "AutoModelForSeq2SeqLM and its generate()",
    "transformers.top_k_top_p_filtering": "generate(do_sample=True, top_k=…, top_p=…)",
    "transformers.BeamSearchScorer": "generate(num_beams=…)",
    "transformers.glue_compute_metrics": "evaluate.load",
    "datasets.load_metric": "evaluate.load",
    "peft.prepare_model_for_int8_training": "peft.prepare_model_for_kbit_training",
    "trl.DataCollatorForCompletionOnlyLM": "SFTConfig(completion_only_loss=True) with prompt and completion columns",
    "trl.setup_chat_format": "trl.clone_chat_template",
    "trl.ConstantLengthDataset": "SFTConfig(packing=True)",
    "openai.FineTune": "client.fine_tuning.jobs",
    "openai.FineTuningJob": "client.fine_tuning.jobs",
    "openai.Completion": "client.completions.create",
    "openai.ChatCompletion": "client.chat.completions.create",
    "openai.File": "client.files.create",
    "openai.Embedding": "client.embeddings.create",
    "openai.Engine": "client.models",
}

ARGUMENT_NAMES: dict[str, str] = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "warmup_ratio": "warmup_steps, which takes a share below 1 too",
    "overwrite_output_dir": "nothing: remove it, the directory is always written into",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR",
    "group_by_length": "train_sampling_strategy='group_by_length'",
    "push_to_hub_token": "hub_token",
    "push_to_hub_model_id": "hub_model_id",
    "fp16_backend": "nothing: remove it",
    "half_precision_backend": "nothing: remove it",
    "save_safetensors": "nothing: safetensors is always written",
    "include_inputs_for_metrics": "include_for_metrics=['inputs']",
    "use_mps_device": "nothing: the device is found by itself",
    "max_seq_length": "max_length",
}

TRAINER_ARGUMENTS: dict[str, str] = {"tokenizer": "processing_class"}
SFT_ARGUMENTS: dict[str, str] = {
    "max_seq_length": "SFTConfig(max_length=…)",
    "dataset_text_field": "SFTConfig(dataset_text_field=…)",
    "packing": "SFTConfig(packing=…)",
    "dataset_num_proc": "SFTConfig(dataset_num_proc=…)",
}
LOADING_ARGUMENTS: dict[str, str] = {
    "use_auth_token": "token",
    "load_in_8bit": "quantization_config=BitsAndBytesConfig(load_in_8bit=True)",
    "load_in_4bit": "quantization_config=BitsAndBytesConfig(load_in_4bit=True)",
    "resume_download": "nothing: downloads are always resumed",
}
TOKENIZER_METHODS: dict[str, str] = {
    "as_target_tokenizer": "the argument text_target=",
    "encode_plus": "tokenizer(text)",
    "batch_encode_plus": "tokenizer(texts)",
    "prepare_seq2seq_batch": "tokenizer(texts, text_target=…)",
}
CALL_ARGUMENTS: dict[str, str] = {"pad_to_max_length": 'padding="max_length"'}
TASKS: dict[str, str] = {
    "text2text-generation": "AutoModelForSeq2SeqLM and its generate()",
    "summarization": "AutoModelForSeq2SeqLM and its generate()",
    "translation": "AutoModelForSeq2SeqLM and its generate()",
    "conversational": "'text-generation' with a list of messages",
}
OPENAI_METHODS = ("create", "acreate", "list", "retrieve")


@rule("D711", "warning")
def removed_names(facts: Facts) -> Iterator[Found]:
    imported: set[str] = set()
    for node in facts.nodes:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                root = (node.module or "").partition(".")[0]
                name = f"{root}.{alias.name}"
                if name in REMOVED:
                    imported.add(name)
                    yield _gone(node, alias.name, root, REMOVED[name])
        elif isinstance(node, ast.Attribute):
            name = facts.name_of(node)
            if name in REMOVED and name not in imported:
                yield _gone(node, node.attr, name.partition(".")[0], REMOVED[name])


@rule("D711", "warning")
def removed_arguments(facts: Facts) -> Iterator[Found]:
    tokenizer_calls = {call.node for call in tokenized(facts)}
    asking = {call.node for call in generations(facts)}
    for call in facts.calls:
        for name, today in _table(facts, call, call.node in tokenizer_calls, call.node in asking).items():
            given = next((keyword for keyword in call.node.keywords if keyword.arg == name), None)
            if given is not None:
                yield _gone(given, name, call.last, today)
            elif name in call.keywords:
                yield _gone(call.node, name, call.last, today)


def _table(facts: Facts, call: Call, tokenizes: bool, asks: bool) -> dict[str, str]:
    """What is no longer an argument of this call."""
    if call.last in ARGUMENTS:
        return ARGUMENT_NAMES
    if call.last in (*HF_TRAINERS, *TRL_TRAINERS, *own_trainers(facts)):
        if any(name.startswith("unsloth") for name in facts.aliases.values()):
            return {}  # unsloth puts its own trainer in place, which takes the old names
        return TRAINER_ARGUMENTS | (SFT_ARGUMENTS if call.last == "SFTTrainer" else {})
    if call.last == "from_pretrained" and call.name.startswith("transformers."):
        return LOADING_ARGUMENTS
    if tokenizes:
        return CALL_ARGUMENTS
    if call.last in OPENAI_METHODS and "completions" in call.name:
        return {"engine": "model"}
    return {} if not asks else {"use_auth_token": "nothing: remove it"}


@rule("D711", "warning")
def removed_methods(facts: Facts) -> Iterator[Found]:
    for node in facts.nodes:
        if isinstance(node, ast.Attribute) and node.attr in TOKENIZER_METHODS and is_tokenizer(facts, node.value):
            yield _gone(node, node.attr, "tokenizers", TOKENIZER_METHODS[node.attr])
    for call in facts.named("pipeline"):
        task = facts.constant(call.argument("task", 0))
        if isinstance(task, str) and task.removesuffix("s") in TASKS:
            yield _gone(call.node, task, "pipeline", TASKS[task])


def _gone(node: ast.AST, name: str, where: str, today: str) -> Found:
    return Found(
        node,
        f"`{name}` does not exist in today's {where}",
        f"use instead: {today}" if not today.startswith("nothing") else today.removeprefix("nothing: "),
        quote=name,
    )
