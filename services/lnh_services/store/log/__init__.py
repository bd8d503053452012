"""The log: what an entry is, and the part of the log that a store keeps."""
