"""The key hierarchy, seals, mechanisms, Argon2id, and processes that keep their memory."""
