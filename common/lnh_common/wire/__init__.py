"""Bytes: CBOR, the frames of a message, bundles of messages, the sealed channel, the archive file."""
