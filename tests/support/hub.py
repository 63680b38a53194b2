"""A model on the local Hub, and how the client is pointed to it."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from support.hub_server import COMMIT

from stemsplit.models.registry import ModelSpec, WeightFile

REPO = "someone/mine"


SPEC = ModelSpec(
    name="mine",
    summary="",
    license="MIT",
    family="unet",
    stems=("vocals", "drums"),
    repo=REPO,
    revision=COMMIT,
    files=(WeightFile("a.safetensors", gives=("vocals",)), WeightFile("b.safetensors", gives=("drums",))),
)


CONTENT = bytes(range(256)) * 4000  # a megabyte: four reports of progress


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn the client to another Hub than the one that it found in the environment when it was imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)


def write_registry(path: Path, spec: ModelSpec) -> Path:
    """A models.toml with a model in it."""
    stems = list(spec.stems)
    files = [
        f'{{ name = "{f.name}", size = {f.size}, sha256 = "{f.sha256}", gives = {list(f.gives) or stems} }},'
        for f in spec.files
    ]
    path.write_text(
        f'[mine]\nsummary = "x"\nfamily = "unet"\nstems = {stems}\nlicense = "MIT, as its author says"\n'
        f'repo = "{spec.repo}"\nrevision = "{spec.revision}"\nfiles = [\n' + "\n".join(files) + "\n]\n"
    )
    return path
