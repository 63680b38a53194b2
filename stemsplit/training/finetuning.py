"""Beginning with a model that has been trained already."""

from dataclasses import replace

from stemsplit.errors import UsageError
from stemsplit.models.checkpoint import Header, Model
from stemsplit.models.ensemble import load_ensemble
from stemsplit.models.loading import LocalModel
from stemsplit.networks.masking import MaskNetwork
from stemsplit.training.recipe import Recipe


def load_start(obtained: LocalModel) -> Model:
    """A model to begin with, of any family. Raises ModelError as `load_ensemble` does, UsageError if it is several."""
    paths, name = obtained.paths, obtained.spec.name
    ensemble = load_ensemble(paths, obtained.gives, config=obtained.spec.config)
    if len(ensemble.members) > 1:
        told = f"{name!r} is {len(ensemble.members)} networks in one, and only one network can be trained"
        where = f"; its files are told by  stemsplit models path {name}" if len(paths) > 1 else ""
        raise UsageError(told, f"begin with one of its networks, if they have files of their own{where}")
    return Model(ensemble.header, ensemble.members[0].network)


def recipe_for(model: Model) -> Recipe:
    """The defaults for training a model further: its own network and windows, small steps, and not many."""
    header: Header = model.header
    return replace(
        Recipe(),
        family=header.family,
        config=dict(header.config),
        stems=header.stems,
        rate=header.rate,
        channels=header.channels,
        window_seconds=header.length / header.rate,
        overlap_seconds=(header.length - header.hop) / header.rate,
        epochs=20,
        batch_size=4,
        learning_rate=1e-4,
        loss="magnitude" if isinstance(model.network, MaskNetwork) else "waveform",
    )
