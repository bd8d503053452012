"""The programs that run on a member: the supervisor, its five services, and what these share."""
