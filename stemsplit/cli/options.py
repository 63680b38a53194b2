"""Options that several commands share, and their completion in a shell. Nothing here needs torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stemsplit.cli import help
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.models.registry import FALLBACK, Registry, read_registry
from stemsplit.separation import options
from stemsplit.separation.options import MAX_OVERLAP
from stemsplit.wording import did_you_mean

FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "alac")  # as `audio.formats`, which imports more than help needs
DEFAULT = "htdemucs"  # as models.toml says, for help pages


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
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        rich_help_panel=help.FILES,
        help="Where the stems go, also a URL; a name such as vocals.flac is the file of the only stem of one song; - "
        "is standard output.",
    ),
]
OutputFolder = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the stems go.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=complete_model,
        rich_help_panel=help.STEMS,
        help="A model's name (see stemsplit models), hf://OWNER/NAME[@REVISION], or the path of a .safetensors file; "
        f"by default {DEFAULT}, or {FALLBACK} where that is not to be had.",
    ),
]
RegistryFile = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="FILE",
        rich_help_panel=help.STEMS,
        help="A models.toml of your own, whose models are added to the list.",
    ),
]
AcceptLicense = Annotated[
    bool,
    typer.Option(
        "--accept-license",
        rich_help_panel=help.STEMS,
        help="Accept the licence of a model that asks for it before its first download.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(
        rich_help_panel=help.QUALITY,
        help="Where to compute: on the processor, an NVIDIA or AMD card (cuda), or an Apple one (mps).",
    ),
]
Stems = Annotated[
    str | None,
    typer.Option(
        "--stems",
        metavar="NAMES",
        autocompletion=complete_stems,
        rich_help_panel=help.STEMS,
        help="Only these stems, such as vocals,drums; no_vocals is the song without vocals.",
    ),
]
TwoStems = Annotated[
    str | None,
    typer.Option(
        "--two-stems",
        metavar="STEM",
        autocompletion=complete_stems,
        rich_help_panel=help.STEMS,
        help="This stem and the song without it: vocals gives vocals and no_vocals.",
    ),
]
Mixture = Annotated[
    bool,
    typer.Option("--mixture/--no-mixture", rich_help_panel=help.FILES, help="Write the song itself beside its stems."),
]
StemFile = Annotated[
    bool,
    typer.Option(
        "--stem-file/--no-stem-file",
        rich_help_panel=help.FILES,
        help="Also write one .stem.mp4 with all four stems, for DJ software.",
    ),
]
Player = Annotated[
    bool,
    typer.Option(
        "--player/--no-player",
        rich_help_panel=help.FILES,
        help="Also write a page to listen to the stems in a browser.",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0,
        max=MAX_OVERLAP,
        rich_help_panel=help.QUALITY,
        help="How much neighbouring windows overlap: more is smoother and slower, as 0.5 takes twice as long as 0; by "
        "default as the model's author chose.",
    ),
]
Shifts = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        rich_help_panel=help.QUALITY,
        help="Separate N times, each a little shifted in time, and average: slightly better, N times as slow.",
    ),
]
Wiener = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        rich_help_panel=help.QUALITY,
        help="Refine the stems N times by a Wiener filter, which weighs them against one another; for mini and the "
        "Spleeter models.",
    ),
]
Precision = Annotated[
    options.Precision,
    typer.Option(
        rich_help_panel=help.QUALITY,
        help="half computes with 16 bits where that is safe, auto where this machine is faster with them.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=help.QUALITY,
        help="How many windows to compute at a time: more are faster on a graphics card, and need more of its memory.",
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        rich_help_panel=help.QUALITY,
        help="How many songs to separate at a time, on a processor with many cores.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        rich_help_panel=help.SONGS,
        help="Separate the songs on a cluster of Ray: auto, local, HOST:PORT or ray://HOST:PORT; as many at a time as "
        "there is room for, or as --jobs says.",
    ),
]
GpusPerWorker = Annotated[
    float,
    typer.Option(
        "--gpus-per-worker",
        metavar="SHARE",
        rich_help_panel=help.SONGS,
        help="On a cluster: the share of a GPU that each song has, such as 0.5.",
    ),
]
CpusPerWorker = Annotated[
    int | None,
    typer.Option(
        "--cpus-per-worker",
        metavar="N",
        min=1,
        rich_help_panel=help.SONGS,
        help="On a cluster: how many cores each song has; one beside a GPU by default, else four.",
    ),
]
Filename = Annotated[
    str,
    typer.Option(
        "--filename",
        metavar="TEMPLATE",
        rich_help_panel=help.FILES,
        help="Names of the files below FOLDER, with {track}, {stem}, {ext}, {model}, {folder}, {index}, {title} and "
        "{artist}.",
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="PATTERN",
        rich_help_panel=help.SONGS,
        help="In folders, take only files like these, such as '*.flac'.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        rich_help_panel=help.SONGS,
        help="In folders, leave out files like these, such as 'live/*'.",
    ),
]
SoundTrack = Annotated[
    int,
    typer.Option(
        "--track", metavar="N", min=1, rich_help_panel=help.SONGS, help="Which audio track of a film to take."
    ),
]


def _parse_format(text: str) -> str:
    """Return the name of a format as people may write it: WAV, .mp3."""
    name = text.lower().removeprefix(".")
    if name not in FORMATS:
        known = f"it should be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise UsageError(
            f"--format cannot be {text!r}: {known}", did_you_mean(name, FORMATS, "see  stemsplit separate --help")
        )
    return name


FormatName = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        metavar="|".join(FORMATS),
        callback=_parse_format,
        autocompletion=lambda: list(FORMATS),
        rich_help_panel=help.FILES,
        help="ogg is Vorbis, m4a is AAC, alac is lossless in an .m4a.",
    ),
]
Bits = Annotated[
    Literal["16", "24", "32f"] | None,
    typer.Option(
        "--bits",
        rich_help_panel=help.FILES,
        help="Bit depth of wav, flac and alac: 24 by default, 16 with dither, 32f never clips (wav only).",
    ),
]
Bitrate = Annotated[
    str | None,
    typer.Option(
        "--bitrate", metavar="RATE", rich_help_panel=help.FILES, help="Bit rate of mp3, opus and m4a, such as 192k."
    ),
]
Quality = Annotated[
    float | None,
    typer.Option(
        "--quality",
        metavar="Q",
        rich_help_panel=help.FILES,
        help="Quality of mp3, from 0 (best) to 9, or of ogg, from 0 to 10 (best).",
    ),
]
SampleRate = Annotated[
    str,
    typer.Option(
        "--sample-rate",
        metavar="RATE",
        rich_help_panel=help.FILES,
        help="That of the song, of the model (song, model), or a number such as 48000 or 48k.",
    ),
]
Tags = Annotated[
    bool,
    typer.Option(
        "--tags/--no-tags", rich_help_panel=help.FILES, help="Copy the tags and the cover of the song to its stems."
    ),
]
Clip = Annotated[
    Literal["clamp", "gain"],
    typer.Option(
        rich_help_panel=help.FILES,
        help="If a stem is too loud for its file: clip its peaks, or turn down all stems of the song alike.",
    ),
]
Consistent = Annotated[
    bool | None,
    typer.Option(
        "--consistent/--no-consistent",
        rich_help_panel=help.FILES,
        help="Make the stems add up to the song, by spreading what they lack over them in equal parts; by default if "
        "all stems are written.",
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing/--no-skip-existing",
        rich_help_panel=help.SONGS,
        help="Skip songs whose stems are complete and up to date, and go on with the others.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", rich_help_panel=help.MESSAGES, help="Show what would be done, and do nothing.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", rich_help_panel=help.SONGS, help="Replace existing files.")]
Json = Annotated[bool, typer.Option("--json", rich_help_panel=help.MESSAGES, help="Write JSON to standard output.")]
Print0 = Annotated[
    bool,
    typer.Option(
        "--print0",
        rich_help_panel=help.MESSAGES,
        help="End the paths on standard output with a NUL character each, as xargs -0 reads them.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=help.MESSAGES, help="Show warnings and errors only.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", rich_help_panel=help.MESSAGES, help="Show details as well.")]
