"""Everything that both sides of a socket must agree on: wire, messages, errors, attributes, mechanisms, limits."""

VERSION = "0.2.0"
