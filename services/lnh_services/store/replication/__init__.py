"""The replica and its roles: how members stay in step. Pure."""
