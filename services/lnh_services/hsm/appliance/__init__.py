"""The HSM's own state, sealed on this member: users, partitions, the cluster's secrets."""
