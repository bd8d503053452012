"""What each call does: a function that takes an application and the request's fields, and returns the reply's. Pure."""
