"""D5: recipes and generation settings."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D501": Entry(
        "learning rate out of range",
        "warning",
        "with correct rows a small model at 2e-5 answered nothing right after 15 steps, nor after 300",
        "leave learning_rate out, or set it near the value named",
    ),
    "D502": Entry(
        "steps, warm-up or intervals do not fit the run",
        "warning",
        "3 to 40 steps where 120 are needed teach nothing; a warm-up longer than the run reached 3/500 of its rate",
        "leave max_steps, warmup_steps, eval_steps and save_steps out, or set them as named",
    ),
    "D503": Entry(
        "generation settings that contradict or cancel one another",
        "error",
        "temperature 0.7, 5.0 and none gave identical answers where sampling was off",
        "set do_sample, or leave out what has no effect",
    ),
    "D504": Entry(
        "unknown key",
        "error",
        "a misspelt setting is a setting that is not made; recipes and --set refuse it when they are read",
        "use the nearest known name, which the error gives",
    ),
    "D505": Entry(
        "does not fit, or takes too long",
        "error or warning",
        "a run that outgrows the memory is killed by the system, hours in",
        "lower per_device_train_batch_size (with gradient_accumulation_steps) or max_length, or take a smaller model",
    ),
    "D506": Entry(
        "asked otherwise than trained",
        "error",
        "questions without the role marker that training had: no answer was right",
        "ask with the template and system prompt of training",
    ),
    "D507": Entry(
        "batch padded on the wrong side",
        "error",
        "of nine right answers one was left; Plume's own engine reads each row at its true length, so this concerns "
        "other people's scripts",
        "pad on the left when generating, and pass the attention mask",
    ),
    "D508": Entry(
        "prompt decoded back and cut out of the answer",
        "warning",
        "cleaning decoded text with patterns took a model from all answers right to none; Plume's own engine decodes "
        "new tokens alone, so this concerns other people's scripts",
        "decode only the ids that come after the prompt",
    ),
    "D509": Entry(
        "adapter that matches nothing, or leaves new tokens untrained",
        "error",
        "what is frozen does not learn; given for lora_target_modules; embeddings of added tokens are always trained",
        "name layers that the architecture has; the message lists them",
    ),
}
