"""Images, prompts and questions."""
