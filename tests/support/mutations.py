"""Damage at random, the same for the same seed."""

import random


def mutate(content: bytes, seed: int) -> bytes:
    """Return a damaged copy: bits flipped, numbers at their limits, pieces cut out, repeated, moved, zeroed or foreign.

    Half of the damage is among the first 600 bytes, where most headers are.
    """
    rng = random.Random(seed)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 12))):
        if not data:
            break
        place = rng.randrange(min(len(data), 600) if rng.random() < 0.5 else len(data))
        size = rng.choice((1, 2, 4, 8, 30, 500, 5_000))
        match rng.randrange(8):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place : place + size] = rng.randbytes(size)
            case 2:
                data[place : place + size] = bytes(size)
            case 3:
                limits = (b"\xff", b"\x7f", b"\x80", b"\0\0\0\1", b"\xff\xff\xff\xfe", b"\x7f\xff\xff\xff")
                limit = rng.choice(limits)
                data[place : place + len(limit)] = limit
            case 4:
                del data[place : place + size]
            case 5:
                data[place:place] = data[place : place + size]
            case 6:
                other = rng.randrange(len(data))
                data[place : place + size] = data[other : other + size]
            case 7:
                del data[place:]
    return bytes(data)
