"""The commands that separate songs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemsplit.cli.obtaining import find, obtain, read_registry
from stemsplit.cli.options import (
    BatchSize,
    Device,
    Json,
    ModelName,
    Output,
    Overlap,
    Overwrite,
    Precision,
    Quiet,
    RegistryFile,
    Shifts,
    Stems,
    Wiener,
)
from stemsplit.registry import FALLBACK, Registry, require_masks

if TYPE_CHECKING:
    from stemsplit.batch import Failed, Track
    from stemsplit.console import Messages

DEMO = Path(__file__).parent.parent / "demo.ogg"


def separate(
    songs: Annotated[list[str], typer.Argument(metavar="SONG", help="Audio files, and folders of them.")],
    output: Output = Path("separated"),
    model: ModelName = None,
    own: RegistryFile = None,
    stems: Stems = None,
    device: Device = "auto",
    overlap: Overlap = None,
    shifts: Shifts = 0,
    wiener: Wiener = 0,
    precision: Precision = "full",
    batch_size: BatchSize = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Separate songs into stems.

    Writes FOLDER/<song>/<stem>.wav, and the paths of the stems to standard output. Folders are searched for songs
    recursively, and mirrored in FOLDER.
    """
    from stemsplit import batch
    from stemsplit.console import Messages

    messages, known = Messages(quiet=quiet), read_registry(own)
    wanted = _parse_names(stems)
    spec = find(known, model, wanted)  # a wrong name is told before anything else
    if wiener:
        require_masks(spec)
    tracks, failed = batch.find(songs, output)
    how = {"overlap": overlap, "shifts": shifts, "wiener": wiener, "precision": precision, "batch_size": batch_size}
    request = _Request(model, wanted, device, how, overwrite=overwrite, as_json=as_json)
    _separate(tracks, failed, known, request, messages)


def demo(
    output: Output = Path("separated"),
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Separate the song that comes with stemsplit.

    Writes FOLDER/demo/<stem>.wav, with the model that comes with stemsplit as well.
    """
    from stemsplit import batch
    from stemsplit.console import Messages

    tracks, failed = batch.find([str(DEMO)], output)
    messages = Messages()
    _separate(tracks, failed, read_registry(None), _Request(FALLBACK, device=device, overwrite=overwrite), messages)
    messages.note(f"The song is {DEMO}, its stems are in {tracks[0].folder.absolute()}: listen to them.")


def _parse_names(text: str | None) -> tuple[str, ...]:
    """`"a, b"` -> `("a", "b")`."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


@dataclass(frozen=True, slots=True)
class _Request:
    """How the songs are to be separated: `model` and `stems` as named, `how` as arguments of a Separator."""

    model: str | None
    stems: Sequence[str] = ()
    device: str = "auto"
    how: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    as_json: bool = False


def _separate(
    tracks: Sequence["Track"],
    failed: Sequence["Failed"],
    known: Registry,
    request: _Request,
    messages: "Messages",
) -> None:
    """What `separate` and `demo` share; exits with 1 if any song failed."""
    from stemsplit import batch, console

    # Songs that cannot be opened cost no download, and existing stems neither where it is known which there will be.
    spec = find(known, request.model, request.stems)
    ready, refused = batch.check(tracks, spec.stems, overwrite=request.overwrite)
    for failure in (*failed, *refused):
        messages.error(failure.error)
    results: list[batch.Done | batch.Failed] = [*failed, *refused]
    fallback: dict[str, str] | None = None
    if ready:
        obtained = obtain(known, request.model, messages, request.stems)
        fallback = obtained.fallback
        if obtained.spec.stems != spec.stems:
            ready, refused = batch.check(ready, obtained.spec.stems, overwrite=request.overwrite)
            for failure in refused:
                messages.error(failure.error)
            results += refused
        spec = obtained.spec
    if ready:
        # Only now, as torch takes seconds to import.
        with messages.progress(f"loading {spec.name}"):
            from stemsplit import bags, devices
            from stemsplit.separation import Separator

            device = devices.choose(request.device)
            bag = bags.load_bag(obtained.paths, obtained.gives, config=spec.config, stems=spec.stems, device=device)
            separator = Separator(bag, device=device, **request.how)
    for number, track in enumerate(ready, start=1):
        label = track.source.name if len(ready) == 1 else f"{number}/{len(ready)} {track.source.name}"
        with messages.progress(label) as on_progress, devices.memory_checked(device):
            work = partial(separator.separate_file, overwrite=request.overwrite, on_progress=on_progress)
            result = batch.run(track, spec.stems, work)
        results.append(result)
        if isinstance(result, batch.Failed):
            messages.error(result.error)
            continue
        messages.separated(track.source, track.folder, result.report, result.seconds)
        if not request.as_json:
            for path in track.outputs(spec.stems).values():
                console.write(str(path))
    if request.as_json:
        songs = [batch.describe(result, spec.stems) for result in results]
        console.write_json({"model": spec.name, "fallback": fallback, "songs": songs})
    broken = sum(isinstance(result, batch.Failed) for result in results)
    if len(results) > 1:
        with_what = f" with {spec.name}, not {fallback['instead_of']}" if fallback else ""
        messages.note(f"{len(results) - broken} of {len(results)} songs separated{with_what}, {broken} failed")
    if broken:
        raise typer.Exit(1)
