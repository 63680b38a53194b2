"""Options that several commands share, and their completion in a shell. Nothing here needs torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stemsplit.errors import StemsplitError
from stemsplit.models.registry import Registry, read_registry
from stemsplit.separation import options
from stemsplit.separation.options import MAX_OVERLAP


def complete_model(context: typer.Context) -> list[tuple[str, str]]:
    """Return the names of all models, each with its summary."""
    try:
        registry = _registry(context)
    except StemsplitError:
        return []
    return [(spec.name, spec.summary) for spec in registry.models.values()]


def complete_stems(context: typer.Context, incomplete: str) -> list[str]:
    """Return the stems of the model, after those that are named already: `vocals,d` -> `vocals,drums`."""
    try:
        spec = _registry(context).find(context.params.get("model"))
    except StemsplitError:
        return []
    *before, _ = incomplete.split(",")
    return [",".join([*before, stem]) for stem in spec.stems if stem not in before]


def _registry(context: typer.Context) -> Registry:
    path = context.params.get("own")  # of --registry; some versions of Typer have not converted it yet
    return read_registry(Path(path) if path else None)


Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the stems go; - is standard output.")
]
OutputFolder = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the stems go.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=complete_model,
        help="A model's name (see stemsplit models), hf://OWNER/NAME[@REVISION], or the path of a .safetensors file.",
    ),
]
RegistryFile = Annotated[
    Path | None, typer.Option("--registry", metavar="FILE", help="Your own models.toml, added to the built-in one.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(help="Where the network runs; auto picks the fastest available."),
]
Stems = Annotated[
    str | None,
    typer.Option(
        "--stems",
        metavar="NAMES",
        autocompletion=complete_stems,
        help="Only these stems, such as vocals,drums; only the weights they need are downloaded.",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0,
        max=MAX_OVERLAP,
        help="Overlap of neighbouring windows, such as 0.25; by default the model's.",
    ),
]
Shifts = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Average N separations at random time shifts: better, N times slower."),
]
Wiener = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Refine the stems with N iterations of Wiener filtering; for models that estimate masks.",
    ),
]
Precision = Annotated[
    options.Precision, typer.Option(help="Compute in 32 bits, or in 16 where that is safe: faster on GPUs.")
]
BatchSize = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Windows computed at a time; more are faster on a GPU.")
]
Filename = Annotated[
    str,
    typer.Option(
        "--filename",
        metavar="TEMPLATE",
        help="Names of the output files, with {track}, {stem}, {ext}, {model}, {folder}, {index}, {title} and "
        "{artist}.",
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="PATTERN", help="In folders, take only files like these, such as '*.flac'."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="In folders, leave out files like these, such as 'live/*'."),
]
SoundTrack = Annotated[
    int, typer.Option("--track", metavar="N", min=1, help="Which audio track of a video; the first by default.")
]
FormatName = Annotated[
    Literal["wav", "flac", "mp3", "ogg", "opus", "m4a", "alac"],
    typer.Option("--format", "-f", help="Output format; ogg is Vorbis, m4a is AAC, alac is lossless in an .m4a."),
]
Bits = Annotated[
    Literal["16", "24", "32f"] | None,
    typer.Option("--bits", help="Bit depth of wav, flac and alac; 24 by default, 32f is float, 16 is dithered."),
]
Bitrate = Annotated[
    str | None, typer.Option("--bitrate", metavar="RATE", help="Bit rate of mp3, opus and m4a, such as 192k.")
]
Quality = Annotated[
    float | None,
    typer.Option("--quality", metavar="Q", help="Quality of mp3, from 0 (best) to 9, or of ogg, from 0 to 10 (best)."),
]
SampleRate = Annotated[
    str, typer.Option("--sample-rate", metavar="RATE", help="Sample rate of the stems: song, model, or a number in Hz.")
]
TwoStems = Annotated[
    str | None,
    typer.Option(
        "--two-stems",
        metavar="STEM",
        autocompletion=complete_stems,
        help="Write this stem and the rest of the song, such as vocals and no_vocals.",
    ),
]
Mixture = Annotated[bool, typer.Option("--mixture/--no-mixture", help="Write the song itself beside its stems, too.")]
StemFile = Annotated[
    bool, typer.Option("--stem-file/--no-stem-file", help="Write one .stem.mp4 for DJ software beside the stems.")
]
Player = Annotated[bool, typer.Option("--player/--no-player", help="Write an HTML page to listen to the stems.")]
Tags = Annotated[bool, typer.Option("--tags/--no-tags", help="Copy the tags and the cover of the song to its stems.")]
Clip = Annotated[
    Literal["clamp", "gain"],
    typer.Option(help="Beyond full scale: clip, or turn down all stems of the song by the same gain."),
]
Consistent = Annotated[
    bool | None,
    typer.Option(
        "--consistent/--no-consistent",
        help="Make the stems add up to the song, by spreading what they lack over them in equal parts; by default if "
        "all stems are written.",
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing/--no-skip-existing", help="Skip songs whose stems are complete and up to date."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
Jobs = Annotated[
    int,
    typer.Option("--jobs", "-j", metavar="N", min=1, help="Songs separated at a time; for processors with many cores."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show details as well.")]
