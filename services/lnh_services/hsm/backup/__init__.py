"""The HSM's part in backup: keys of archives, restores, and a new beginning from an archive."""
