"""The drill, `lnh drill`: rehearses what docs/operations.md says about faults, by the commands that stand there.

`steps` and `scenarios` are the table of what is done, `report` and `page` turn the events of a drill into what is
shown: all of that is pure. `runner` carries a table out, `client` is the application that works meanwhile.
"""
