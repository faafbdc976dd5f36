"""The page docs/throughput.md from what tools/throughput.py measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CONTESTANTS = {
    "bare": "the original model in plain onnxruntime on prepared tensors in memory, one after"
    " another; {threads} threads share each run",
    "bare side by side": "the same, {threads} runs at a time with a thread each",
    "photos": "each photo decoded, preprocessed and run, one after another; {threads} threads share"
    " each run",
    "photos side by side": "the same, {threads} photos at a time with a thread each: nothing that"
    " explains can be faster",
    "maps one by one": "`explain` without overlap: each photo decoded, explained and its raw map"
    " written; {threads} threads share each run",
    "maps": "`onnx-gradcam explain --pictures none`, {threads} photos at a time",
    "jpg": "`onnx-gradcam explain --pictures jpg`",
    "png": "`onnx-gradcam explain`: PNG is its default",
}
"""Contestant -> what it does."""

STEPS = {
    "decode": "read and decode the JPEG file",
    "preprocess": "resize, crop, normalise",
    "run": "the original model, one thread",
    "gradient": "the gradient in the exported file",
    "heat map": "CAM, resize, normalise, and all else that `Explainer.explain` does",
    "write": "write the raw map",
    "draw": "draw the panel of photo and overlay",
    "encode JPEG": "encode the panel as JPEG",
    "encode PNG": "encode it as PNG",
}
"""Step -> what it is."""

SIZE_DEPENDENT = ("decode", "preprocess", "draw", "encode JPEG", "encode PNG")
"""Steps that take longer for a larger photo."""

EXPLAINING = ("gradient", "heat map")
READING = ("decode", "preprocess")
GOAL = 0.9

HEADER = """# Throughput of a folder

Written by `tools/throughput.py`: onnxruntime {onnxruntime}, OpenCV {opencv}, CPU provider,
{threads} threads, {images} JPEG photos of 500 x 375, medians of {repetitions} repetitions, all
contestants in turn in one run. A ratio is images per second over those of *bare* in the same
repetition, in brackets the quartiles; above 1 is faster than bare inference. Behind the comma: the
fastest repetition of each, which is disturbed least by what else the machine does. (A busy machine
slows threads that wait for each other most, so its medians flatter what runs side by side.)

"""

TEXT = """
## How `explain` does it

As many images are under way at a time as there are threads. Each is decoded, preprocessed, run,
painted, drawn and encoded by one thread, which runs the model on itself (`intra_op_num_threads`
is 1). Threads, not processes: onnxruntime, OpenCV and NumPy let others run meanwhile. The thread
that asked writes the files, in order. At most four images per worker are under way or wait, so
memory does not grow with the folder. A method that runs the model again many times, such as `rise`,
takes one image after another, with all threads for each of its batches.

No thread waits for another between two operators of a model, which is why *side by side* needs less
CPU time than threads that share each run.

In Python:

```python
from onnx_gradcam import explain_images, load
from onnx_gradcam.pipeline import divide

explainer = load("model.cam.onnx", session_options=divide().session_options())
for done in explain_images(explainer, paths):  # in the order of the paths
    print(done.source, done.error or done.result.class_names)
```

`finish=` is called by the workers with each explanation: draw, encode or reduce there. `batch=`
runs several images together; on the CPU it gains nothing over side by side.

What is not done: JPEG files are decoded at full size. OpenCV can decode at a half or an eighth, but
the pixels differ, and with them the scores.
"""


def page(facts: Mapping[str, Any]) -> str:
    """Return the page as Markdown.

    Args:
        facts: the content of docs/throughput.json.
    """
    models: Sequence[Mapping[str, Any]] = facts["models"]
    threads = facts["threads"]
    names = [model["model"] for model in models]
    parts = [
        HEADER.format(**facts),
        _table(["contestant", *names, "what it does"], _ratios(models, threads)),
        "\n## Milliseconds per image\n\nWall clock; in brackets the CPU time of all threads.\n\n",
        _table(["contestant", *names], _walls(models)),
        "\n## Where the rest goes\n\nCPU milliseconds of one thread for each step, each alone;"
        " of a photo of 4000 x 3000, those that depend on its size.\n\n",
        _table(["step", *names, "12 megapixels", "what it is"], _steps(facts)),
        "\n",
        *(_arithmetic(model, threads) for model in models),
        TEXT,
    ]
    return "".join(parts)


def _ratios(models: Sequence[Mapping[str, Any]], threads: int) -> list[list[str]]:
    rows = []
    for who, what in CONTESTANTS.items():
        spreads = [(model["ratio"][who], model["fastest"][who]) for model in models]
        cells = [
            f"{s['median']:.2f} ({s['low']:.2f} to {s['high']:.2f}), {fastest:.2f}"
            for s, fastest in spreads
        ]
        rows.append([who, *cells, what.format(threads=threads)])
    return rows


def _walls(models: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            who,
            *(f"{m['wall'][who]['median']:.1f} ({m['cpu'][who]['median']:.1f})" for m in models),
        ]
        for who in CONTESTANTS
    ]


def _steps(facts: Mapping[str, Any]) -> list[list[str]]:
    columns = [*(model["steps"] for model in facts["models"]), facts["steps_of_a_large_photo"]]
    rows = []
    for step, what in STEPS.items():
        cells = [f"{column[step]:.2f}" if step in column else "" for column in columns]
        rows.append([step, *cells, what])
    return rows


def _arithmetic(model: Mapping[str, Any], threads: int) -> str:
    """Return what the steps sum up to, beside what bare inference leaves for them."""
    steps, bare = model["steps"], model["wall"]["bare"]["median"]
    reading = sum(steps[name] for name in READING)
    explaining = sum(steps[name] for name in EXPLAINING)
    total = steps["run"] + reading + explaining + steps["write"]
    budget = bare * threads / GOAL
    best = bare * threads / (steps["run"] + reading)
    against = model["wall"]["photos side by side"]["median"] / model["wall"]["maps"]["median"]
    reached = model["ratio"]["maps"]["median"]
    return f"""
**{model["model"]}**: bare inference has {threads} threads for {bare:.1f} ms per image,
{bare * threads:.1f} ms of CPU; {GOAL} of its speed leaves {budget:.1f} ms. On one thread the
model takes {steps["run"]:.1f} of them, reading {reading:.1f}, explaining {explaining:.1f}, writing
{steps["write"]:.1f}: {total:.1f} ms. Reading and running, without explaining, would reach
{best:.2f} of bare inference if no two threads got in each other's way. Maps reach {reached:.2f},
which is {against:.2f} of *photos side by side*.
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
