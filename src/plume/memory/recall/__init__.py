"""Recall: what was said before that belongs to a question, by meaning and by words."""
