"""Write the network that the training of the second step of `mini` begins with: `mini-unet` without its vocals.

python recipes/mini/initial.py runs/mini-last/model.safetensors initial.safetensors
"""

import sys
from pathlib import Path

from metal import restrict

from stemsplit.models import checkpoint

if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    checkpoint.save(restrict(checkpoint.load(source), ("drums", "bass", "other")), target)
