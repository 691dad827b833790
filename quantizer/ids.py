"""Experiment ids: UUIDs of version 7 (RFC 9562, section 5.7), which sort by the time they were made."""

import os
import time
import uuid


def new_experiment_id() -> str:
    """A new UUIDv7: 48 bits of Unix time in milliseconds, the version and variant bits, 74 random bits."""
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


__all__ = ["new_experiment_id"]
