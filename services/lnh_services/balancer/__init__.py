"""The client door: routing by group and load, without seeing what passes."""
