"""Encryption at rest: envelopes, the keys of persons, master keys, their rotation and the proof that all opens."""
