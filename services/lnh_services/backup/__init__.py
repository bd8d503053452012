"""Archives: their schedule, files, retention, and restoring one."""
