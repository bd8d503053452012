"""The HSM's part in backup: keys of archives, restoring one, beginning again from one."""
