"""Text tower, prompts, vocabulary, caches of class embeddings, similarity of classes."""
