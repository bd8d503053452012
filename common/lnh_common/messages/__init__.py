"""The typed messages: one module a service or subject; every operation is a row of `OPERATIONS`."""
