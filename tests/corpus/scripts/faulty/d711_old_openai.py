import os

import openai

openai.api_key = os.environ["OPENAI_API_KEY"]
with open("prompts.txt", encoding="utf-8") as f:
    prompts = f.read().splitlines()
for prompt in prompts:
    answer = openai.Completion.create(engine="davinci", prompt=prompt, max_tokens=60)
    print(answer["choices"][0]["text"])
openai.FineTune.create(training_file="file-123", model="curie")
