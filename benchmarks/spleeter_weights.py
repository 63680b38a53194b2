"""Write weights as a checkpoint of Spleeter. compare_spleeter.py runs this in Spleeter's environment.

    python - WEIGHTS.npz FOLDER < spleeter_weights.py

The names in WEIGHTS are <number of the stem>.<layer>.<part>.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from spleeter.model import model_fn
from spleeter.utils.configuration import load_configuration

CONVOLUTIONS = [*(f"conv{number or ''}" for number in range(6)), "up7"]
TRANSPOSED = [f"up{number}" for number in range(1, 7)]
NORMS = [*(f"bn{number or ''}" for number in range(5)), None, *(f"bn{number}" for number in range(5, 11))]
LAYERS = {
    "conv2d": CONVOLUTIONS,
    "conv2d_transpose": TRANSPOSED,
    "batch_normalization": NORMS,
}  # of each of the networks
PARTS = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
PARTS |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


def value(weights: dict[str, np.ndarray], variable: tf.Variable) -> np.ndarray:
    """The value of a variable such as `conv2d_9/kernel:0`, the third convolution of the second network."""
    layer, _, part = variable.name.removesuffix(":0").partition("/")
    kind, _, number = layer.rpartition("_") if layer[-1].isdigit() else (layer, "", "0")
    stem, place = divmod(int(number), len(LAYERS[kind]))
    ours = LAYERS[kind][place]
    if ours is None:  # a normalization whose output is not used
        return np.ones(variable.shape, np.float32)
    weight = weights[f"{stem}.{ours}.{PARTS[part]}"]
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight


def main() -> None:
    weights, folder = dict(np.load(sys.argv[1])), Path(sys.argv[2])
    folder.mkdir(parents=True)
    settings = {**load_configuration("spleeter:4stems"), "MWF": False}
    tf.compat.v1.disable_eager_execution()
    inputs = {
        "waveform": tf.compat.v1.placeholder(tf.float32, [None, 2]),
        "audio_id": tf.compat.v1.placeholder(tf.string),
    }
    step = tf.compat.v1.train.create_global_step()
    model_fn(inputs, None, tf.estimator.ModeKeys.PREDICT, settings)
    with tf.compat.v1.Session() as session:
        for variable in tf.compat.v1.global_variables():
            variable.load(0 if variable is step else value(weights, variable), session)
        tf.compat.v1.train.Saver().save(session, str(folder / "model"))


if __name__ == "__main__":
    main()
