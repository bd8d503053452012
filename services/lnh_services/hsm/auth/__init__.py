"""Who somebody is and what they may: credentials, tokens, permissions, attempts at passwords."""
