"""What runs on a member: the supervisor, its five services, and what these share."""
