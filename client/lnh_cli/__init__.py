"""The command line, `lnh`, over the SDK's public modules."""
