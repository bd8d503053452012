"""The client door: routes by affinity group and load, without seeing what passes."""
