from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("./innkeeper")
model = AutoModelForCausalLM.from_pretrained("./innkeeper")
history = ""
while True:
    line = input("You: ")
    if line == "bye":
        break
    history += f"Guest: {line}\nInnkeeper:"
    ids = tokenizer(history, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=60)
    reply = tokenizer.decode(out[0][ids["input_ids"].shape[1]:], skip_special_tokens=True)
    history += reply + "\n"
    print("Innkeeper:", reply)
