"""Talks with a model that was trained elsewhere; keeps the last turns only."""
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TURNS = 6
tokenizer = AutoTokenizer.from_pretrained("./guide")
model = AutoModelForCausalLM.from_pretrained("./guide").eval()


def reply(history):
    inputs = tokenizer.apply_chat_template(history, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=120, do_sample=True, temperature=0.6, top_p=0.9)
    return tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def main():
    history = []
    while True:
        question = input("> ").strip()
        if question in {"", "quit"}:
            break
        history.append({"role": "user", "content": question})
        said = reply(history[-TURNS:])
        history.append({"role": "assistant", "content": said})
        history = history[-TURNS:]
        print(said)


if __name__ == "__main__":
    main()
