"""Carries out requests: a module a group of routes, a function a route, each a few calls of the SDK."""
