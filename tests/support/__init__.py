"""What several tests share: worlds, toy stages, tiny models, a chat server."""
