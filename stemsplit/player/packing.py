"""Bytes as text for a page: five characters for four bytes, where base64 takes five and a third.

This is Ascii85 with other characters: none means anything in HTML or JSON, and the first stands for 0.
"""

import numpy as np

ALPHABET = "".join(map(chr, (code for code in range(33, 127) if chr(code) not in "\"&'/<=>\\`")))
_CODES = np.frombuffer(ALPHABET.encode(), np.uint8)


def pack(data: bytes) -> str:
    """Return text of five characters for four bytes; n bytes at the end become n + 1 characters."""
    missing = -len(data) % 4
    words = np.frombuffer(data + bytes(missing), ">u4").astype(np.uint32)
    digits = np.empty((len(words), 5), np.uint8)
    for place in range(4, -1, -1):
        words, digits[:, place] = np.divmod(words, 85)
    return _CODES[digits].tobytes().decode("ascii")[: 5 * len(words) - missing]
