"""Trainers of the three model families, and in ``common`` what they share. Each is resumable and seeded."""
