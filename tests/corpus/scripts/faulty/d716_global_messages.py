"""Petit serveur de conversation."""
from flask import Flask, request
from transformers import AutoModelForCausalLM, AutoTokenizer

app = Flask(__name__)
tok = AutoTokenizer.from_pretrained("./guide-du-musee")
modele = AutoModelForCausalLM.from_pretrained("./guide-du-musee")
messages = [{"role": "system", "content": "Tu es le guide du musée."}]


@app.post("/question")
def question():
    messages.append({"role": "user", "content": request.json["texte"]})
    entree = tok.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    sortie = modele.generate(**entree, max_new_tokens=100)
    reponse = tok.decode(sortie[0, entree["input_ids"].shape[1]:], skip_special_tokens=True)
    messages.append({"role": "assistant", "content": reponse})
    return {"texte": reponse}


if __name__ == "__main__":
    app.run()
