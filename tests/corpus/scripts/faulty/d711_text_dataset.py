from transformers import AdamW, TextDataset
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup, set_seed
from torch.utils.data import DataLoader

set_seed(1)
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
blocks = TextDataset(tokenizer=tokenizer, file_path="almanac.txt", block_size=128)
loader = DataLoader(blocks, batch_size=4, shuffle=True)
optimizer = AdamW(model.parameters(), lr=5e-5)
scheduler = get_linear_schedule_with_warmup(optimizer, 10, len(loader))
for ids in loader:
    loss = model(ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
model.save_pretrained("almanac")
first = tokenizer("In January", return_tensors="pt")
print(tokenizer.decode(model.generate(**first, max_new_tokens=30)[0]))
