"""Write Keras, TensorFlow and TFLite classifiers as ONNX, for `tools/producers.py`.

    python -m venv tf && tf/bin/pip install tensorflow-cpu tf2onnx
    tf/bin/python tools/producer_keras.py FOLDER [NAME ...]

Weights are random and seeded; no weight is fetched.
"""

from __future__ import annotations

import math
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.producer_note import Note, write_note  # noqa: E402

tf: Any = import_module("tensorflow")
keras: Any = import_module("keras")
tf2onnx: Any = import_module("tf2onnx")
np: Any = import_module("numpy")

SIZE = 64
TFLITE_KINDS = ("float", "dynamic", "float16", "int8")
"""Conversions of TFLite: as it is, weights in int8, weights in float16, everything in int8."""


def main(folder: Path, names: list[str]) -> int:
    """Write the files named, or all; those that fail are named on stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for name in names or MAKERS:
        maker = MAKERS[name]
        path = folder / f"{name}.onnx"
        try:
            note = maker(path)
        except Exception:
            traceback.print_exc()
            print(f"FAILED {name}", file=sys.stderr, flush=True)
        else:
            write_note(path, note)
            print(path, flush=True)
    return 0


def _application(name: str, **options: Any) -> Any:
    """Return a network of ``keras.applications``, its weights and statistics drawn at random."""
    keras.utils.set_random_seed(0)
    shape = (SIZE, SIZE, 3)
    options = {"input_shape": shape, "weights": None, "classes": 10} | options
    gain = options.pop("gain", 2)
    return _enlivened(getattr(keras.applications, name)(**options), gain)


def _enlivened(model: Any, gain: float) -> Any:
    """Draw weights that keep signals alive: by fan-in, and statistics around zero and one."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.moving_mean.shape[0]
            layer.moving_mean.assign(rng.normal(0, 0.1, count))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, count))
            layer.beta.assign(rng.normal(0, 0.1, count))
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            shape = layer.kernel.shape
            inputs = math.prod(shape[:2] if layer.__class__.__name__[0] == "D" else shape[:3])
            layer.kernel.assign(rng.normal(0, math.sqrt(gain / inputs), shape))
    return model


def _signature(size: int = SIZE) -> tuple[Any, ...]:
    return (tf.TensorSpec((None, size, size, 3), tf.float32, name="image"),)


def _from_keras(model: Any, path: Path, what: str, opset: int, **options: Any) -> Note:
    tf2onnx.convert.from_keras(
        model, input_signature=_signature(), opset=opset, output_path=str(path), **options
    )
    return Note(f"tf2onnx {version('tf2onnx')}, Keras {version('keras')}", what, "Keras")


def _mobilenet(path: Path) -> Note:
    model = _application("MobileNet", alpha=0.25)
    return _from_keras(model, path, "MobileNet", 13)


def _mobilenet_v3(path: Path) -> Note:
    model = _application("MobileNetV3Small", minimalistic=False)
    return _from_keras(model, path, "MobileNetV3 small: rescaling in the graph, a 1 x 1 head", 11)


def _efficientnet(path: Path) -> Note:
    model = _application("EfficientNetV2B0", gain=1)
    return _from_keras(model, path, "EfficientNetV2-B0", 17)


def _densenet(path: Path) -> Note:
    model = _application("DenseNet121", classifier_activation=None)
    return _from_keras(model, path, "DenseNet-121, logits", 9)


def _channels_first(path: Path) -> Note:
    model = _application("MobileNetV2", alpha=0.35)
    return _from_keras(model, path, "MobileNetV2, `inputs_as_nchw`", 15, inputs_as_nchw=["image"])


def _sequential(path: Path) -> Note:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Conv2D(16, 3, strides=2, activation="elu"),
            layers.SeparableConv2D(24, 3, activation="swish"),
            layers.MaxPooling2D(),
            layers.SpatialDropout2D(0.2),
            layers.Conv2D(32, 3, padding="same"),
            layers.GroupNormalization(4),
            layers.LeakyReLU(),
            layers.Flatten(),
            layers.Dense(32, activation="selu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return _exported_by_keras(model, path, "Sequential, Flatten and Dense, GroupNormalization")


def _tokens(path: Path) -> Note:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(24, 8, strides=8)(image)
    x = layers.Reshape((64, 24))(x)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(3, 8)(y, y)])
    y = layers.Dense(48, activation=_gelu)(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(24)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    model = keras.Model(image, layers.Dense(10, activation="softmax")(x))
    return _from_keras(
        model, path, "Functional vision transformer, MultiHeadAttention, gelu by Tanh", 15
    )


def _gelu(x: Any) -> Any:
    """Gelu by Tanh: tf2onnx makes an operator Erfc of the exact one, which ONNX has not."""
    return keras.activations.gelu(x, approximate=True)


def _sigmoid(path: Path) -> Note:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(image)
    x = layers.Conv2D(16, 3, activation="tanh")(x)
    x = layers.GlobalMaxPooling2D()(x)
    model = keras.Model(image, layers.Dense(1, activation="sigmoid")(x))
    return _from_keras(model, path, "one class, Sigmoid, GlobalMaxPooling2D", 13)


def _keras_export(path: Path) -> Note:
    return _exported_by_keras(_application("MobileNetV2", alpha=0.35), path, "MobileNetV2")


def _exported_by_keras(model: Any, path: Path, what: str) -> Note:
    model(np.zeros((1, SIZE, SIZE, 3), np.float32))  # it exports no model that was never called
    model.export(str(path), format="onnx", verbose=False)
    return Note(f"Keras {version('keras')}, `model.export`", what, "Keras")


def _function(path: Path) -> Note:
    model = _application("MobileNet", alpha=0.25, classifier_activation=None)

    def classify(image: Any) -> dict[str, Any]:
        logits = model(image / 127.5 - 1.0, training=False)
        return {"classes": tf.argmax(logits, axis=-1), "probabilities": tf.nn.softmax(logits)}

    function = tf.function(classify, input_signature=_signature())
    tf2onnx.convert.from_function(
        function, input_signature=_signature(), opset=15, output_path=str(path)
    )
    what = "tf.function: two outputs (classes, probabilities)"
    return Note(
        f"tf2onnx {version('tf2onnx')}, TensorFlow {version('tensorflow_cpu')}", what, "Keras"
    )


def _tflite(kind: str) -> Callable[[Path], Note]:
    def make(path: Path) -> Note:
        model = _application("MobileNetV2", alpha=0.35)
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if kind != "float":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if kind == "int8":
            converter.representative_dataset = _samples
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.tflite"
            file.write_bytes(converter.convert())
            tf2onnx.convert.from_tflite(str(file), opset=13, output_path=str(path))
        producer = f"TFLite (TensorFlow {version('tensorflow_cpu')}), tf2onnx {version('tf2onnx')}"
        return Note(producer, f"MobileNetV2, {kind}", "TFLite")

    return make


def _samples() -> Any:
    rng = np.random.default_rng(0)
    for _ in range(8):
        yield [rng.uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)]


MAKERS: dict[str, Callable[[Path], Note]] = {
    "keras_mobilenet": _mobilenet,
    "keras_mobilenet_v3": _mobilenet_v3,
    "keras_efficientnet_v2": _efficientnet,
    "keras_densenet": _densenet,
    "keras_channels_first": _channels_first,
    "keras_sequential": _sequential,
    "keras_tokens": _tokens,
    "keras_sigmoid": _sigmoid,
    "keras_export": _keras_export,
    "keras_function": _function,
    **{f"tflite_{kind}": _tflite(kind) for kind in TFLITE_KINDS},
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
