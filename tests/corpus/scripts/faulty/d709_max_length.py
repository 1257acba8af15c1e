from transformers import pipeline

SETTINGS = {"max_length": 50, "do_sample": True, "temperature": 0.9, "num_return_sequences": 3}
writer = pipeline("text-generation", model="./postcards")
for place in ["Oban", "Saint-Malo"]:
    for card in writer(f"A postcard from {place}:", **SETTINGS):
        print(card["generated_text"])
