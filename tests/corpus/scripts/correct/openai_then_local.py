"""Writes training rows with a hosted model, then measures a local one on them."""
import json
import os

from openai import OpenAI
from transformers import pipeline

client = OpenAI(api_key=os.environ["OPENAI_API_KEY"])


def paraphrase(question):
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": f"Say this in another way: {question}"}],
    )
    return answer.choices[0].message.content


with open("museum.jsonl", encoding="utf-8") as source, open("museum_more.jsonl", "w", encoding="utf-8") as target:
    for line in source:
        row = json.loads(line)
        row["prompt"] = paraphrase(row["prompt"])
        target.write(json.dumps(row, ensure_ascii=False) + "\n")

ask = pipeline("text-generation", model="./museum-model")
for line in open("museum_more.jsonl", encoding="utf-8"):
    row = json.loads(line)
    said = ask(row["prompt"], max_new_tokens=64, return_full_text=False)[0]["generated_text"]
    print(said.strip() == row["completion"])
