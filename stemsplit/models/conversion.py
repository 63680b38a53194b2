"""Weights that come as ONNX files, one for each stem, kept as one file of ours: made once, then started from quickly.

It lies in the user's own cache folder, as the Hub's may be shared and read-only. Its name has two keys: one of what the
downloads are, by which it is found to be removed with them, and one of the header that it was made with. Two processes
may make the same file at once: each writes a part of its own, and renames it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stemsplit.errors import ModelError
from stemsplit.files import discard_abandoned, replacing
from stemsplit.models import cache
from stemsplit.models.registry import ONNX, SUFFIX, ModelSpec, WeightFile
from stemsplit.wording import one_line

_KEY = 16  # hexadecimal digits


def convert(paths: Sequence[Path], gives: Sequence[Sequence[str]], config: Mapping[str, Any]) -> Path:
    """A file of ours with what these ONNX files have; made now, unless it is here and good.

    Args:
        gives: the one stem that each file is for. config: settings of the network other than its usual ones.

    Raises ModelError when the files are not exactly such a network, or when the new file cannot be written.
    """
    from stemsplit.models import checkpoint, spleeter_onnx

    header = spleeter_onnx.describe(gives, config)
    path = cache.made_here() / f"{_key(map(cache.hash_of, paths))}-{_key([json.dumps(asdict(header))])}{SUFFIX}"
    if cache.is_unchanged(path):
        return path
    weights = spleeter_onnx.read(paths, header)
    discard_abandoned(cache.made_here().glob(f"*{SUFFIX}.*"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            checkpoint.write(header, weights, part)
            cache.record(part, path)
    except OSError as error:
        if not cache.is_unchanged(path):  # on Windows nothing is replaced that another process has open
            reason = f"cannot write {str(path)!r}: {one_line(error)}"
            raise ModelError(reason, "check the folder and the disk") from error
    return path


def find(spec: ModelSpec) -> list[tuple[WeightFile, Path]]:
    """What has been made of the downloads of a model, for it or for another one of the same downloads."""
    if not any(file.name.endswith(ONNX) for file in spec.files):
        return []
    hashes = [file.sha256 or cache.first_hash(spec, file) for file in spec.files]
    return [(WeightFile(path.name), path) for path in sorted(cache.made_here().glob(f"{_key(hashes)}-*{SUFFIX}"))]


def _key(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:_KEY]
