"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stemsplit.cli.completing import complete_model, complete_stems
from stemsplit.separation import options
from stemsplit.separation.options import MAX_OVERLAP

Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the stems go; - is standard output.")
]
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
    Path | None, typer.Option("--registry", metavar="FILE", help="A models.toml of your own, which adds to ours.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where the network runs; auto takes the fastest there is.")
]
Stems = Annotated[
    str | None,
    typer.Option(
        "--stems",
        metavar="NAMES",
        autocompletion=complete_stems,
        help="Only these, such as vocals,drums; what they do not need is not even fetched.",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0,
        max=MAX_OVERLAP,
        help="How much of a window the next one covers, such as 0.25, if not the usual.",
    ),
]
Shifts = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="The mean of N separations, each a little later in time: better, N times slower."
    ),
]
Wiener = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="Refine the stems N times by what the channels tell; models that estimate masks only."
    ),
]
Precision = Annotated[
    options.Precision, typer.Option(help="Compute in 32 bits, or where it is good enough in 16: faster on GPUs.")
]
BatchSize = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Windows at a time, if not the usual; a GPU is faster with more.")
]
Filename = Annotated[
    str,
    typer.Option(
        "--filename",
        metavar="TEMPLATE",
        help="What the stems are called; besides {track}, {stem} and {ext} there are {model}, {folder}, {index}, "
        "{title} and {artist}.",
    ),
]
Include = Annotated[
    list[str] | None, typer.Option("--include", metavar="PATTERN", help="Of folders take only these, such as '*.flac'.")
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="Of folders leave these out, such as 'live/*'.")
]
SoundTrack = Annotated[
    int, typer.Option("--track", metavar="N", min=1, help="Which sound track of a film; the first one by default.")
]
FormatName = Annotated[
    Literal["wav", "flac", "mp3", "ogg", "opus", "m4a", "alac"],
    typer.Option("--format", "-f", help="Of the stems; ogg is Vorbis, m4a is AAC, alac is lossless in an .m4a."),
]
Bits = Annotated[
    Literal["16", "24", "32f"] | None,
    typer.Option("--bits", help="Of a sample, for wav, flac and alac; 24 by default, 32f is float, 16 has dither."),
]
Bitrate = Annotated[str | None, typer.Option("--bitrate", metavar="RATE", help="For mp3, opus and m4a, such as 192k.")]
Quality = Annotated[
    float | None, typer.Option("--quality", metavar="Q", help="For mp3, 0 (best) to 9; for ogg, 0 to 10 (best).")
]
SampleRate = Annotated[
    str, typer.Option("--sample-rate", metavar="RATE", help="Of the stems: song, model, or a number of Hz.")
]
TwoStems = Annotated[
    str | None,
    typer.Option(
        "--two-stems",
        metavar="STEM",
        autocompletion=complete_stems,
        help="This stem, and the song without it: vocals and no_vocals.",
    ),
]
Mixture = Annotated[bool, typer.Option("--mixture/--no-mixture", help="Write the song itself beside its stems.")]
StemFile = Annotated[
    bool, typer.Option("--stem-file/--no-stem-file", help="Write one .stem.mp4 for DJ software beside the stems.")
]
Player = Annotated[
    bool, typer.Option("--player/--no-player", help="Write a page beside the stems on which to listen to them.")
]
Tags = Annotated[bool, typer.Option("--tags/--no-tags", help="Give the stems the tags and the cover of the song.")]
Clip = Annotated[
    Literal["clamp", "gain"],
    typer.Option(help="Beyond full scale: cut it off, or turn all stems of the song down alike."),
]
Consistent = Annotated[
    bool | None,
    typer.Option(
        "--consistent/--no-consistent",
        help="Make the stems add up to the song. Unsaid: where it changes next to nothing.",
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing/--no-skip-existing", help="Leave out songs whose stems are complete and up to date."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Songs at a time; for processors with many cores.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace stems that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show how it is done as well.")]
