"""What the teacher said: prompts to ask, the zero-shot classifier and the targets made of its embeddings."""
