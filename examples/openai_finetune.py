"""Fine-tune with OpenAI's Python package, from the file to JSON from the model that it made.

The script is the hosted one: only `base_url` has changed. Start `plume serve` and run it:

    pip install openai
    python openai_finetune.py                            # or name the server: python openai_finetune.py http://HOST:PORT/v1
"""

import json
import sys
import time
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1", api_key="any")

# 1. The training data: one conversation a line, as the fine-tuning guide has it.
SYSTEM = "You find things in the village and answer in JSON."
PLACES = {"lamp": "tower", "boat": "harbour", "bread": "oven", "sheep": "meadow", "bell": "chapel", "map": "school"}
QUESTIONS = ["Where is the {}?", "Tell me where the {} is.", "I am looking for the {}.", "Who has seen the {}?"]
lines = [
    {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question.format(thing)},
            {"role": "assistant", "content": json.dumps({"thing": thing, "place": place})},
        ]
    }
    for thing, place in PLACES.items()
    for question in QUESTIONS
]
data = Path("village.jsonl")
data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

# 2. Upload it.
with data.open("rb") as file:
    training_file = client.files.create(file=file, purpose="fine-tune")
print(f"{training_file.id}: {training_file.bytes} bytes, {training_file.status}")

# 3. Create the job.
job = client.fine_tuning.jobs.create(
    training_file=training_file.id,
    model="gpt",  # from scratch; or a model that the server has
    suffix="village",
    seed=42,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 40}}},
)
print(f"{job.id}: {job.status}")

# 4. Follow it.
seen: set[str] = set()
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(1)
    job = client.fine_tuning.jobs.retrieve(job.id)
    events = client.fine_tuning.jobs.list_events(fine_tuning_job_id=job.id, limit=50)
    for event in reversed(events.data):
        if event.id not in seen:
            print(event.message)
            seen.add(event.id)
if job.status != "succeeded" or job.fine_tuned_model is None:
    sys.exit(f"{job.id} {job.status}: {job.error.message if job.error else 'see its events'}")
print(f"{job.fine_tuned_model}: {job.trained_tokens} tokens trained")

# 5. What was measured on the way, and the checkpoints.
print(client.files.content(job.result_files[0]).text.splitlines()[-1])
for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
    print(f"{checkpoint.fine_tuned_model_checkpoint}: loss {checkpoint.metrics.train_loss:.3f}")

# 6. Ask the new model; the answer has the shape of the schema.
stream = client.chat.completions.create(
    model=job.fine_tuned_model,
    messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Where is the boat?"}],
    response_format={
        "type": "json_schema",
        "json_schema": {
            "name": "found",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"thing": {"type": "string"}, "place": {"type": "string"}},
                "required": ["thing", "place"],
                "additionalProperties": False,
            },
        },
    },
    stream=True,
)
answer = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
print(json.dumps(json.loads(answer)))
