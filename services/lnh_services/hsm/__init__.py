"""The only service that sees a plaintext key: a core, its workers and the Argon2id process."""
