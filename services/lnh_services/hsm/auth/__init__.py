"""Authentication and permission: credentials, tokens, permissions, attempts at passwords."""
