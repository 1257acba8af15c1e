from transformers import GPT2LMHeadModel, GPT2Tokenizer

tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
model = GPT2LMHeadModel.from_pretrained("gpt2")
text = "The keeper lit the lamp"
input_ids = tokenizer
output = model.generate(input_ids, max_new_tokens=30)
print(tokenizer.decode(output[0]))
