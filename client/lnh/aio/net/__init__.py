"""Drives the channels of `lnh.net` from an asyncio loop."""
