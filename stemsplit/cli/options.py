"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the stems go.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
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
        "--stems", metavar="NAMES", help="Only these, such as vocals,drums; what they do not need is not even fetched."
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0,
        max=0.95,
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
    Literal["full", "half"], typer.Option(help="Compute in 32 bits, or where it is good enough in 16: faster on GPUs.")
]
BatchSize = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Windows at a time, if not the usual; a GPU is faster with more.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace stems that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")]
