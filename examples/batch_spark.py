"""Images on a Spark cluster: a data frame of image files in, one of where the model looked out.

    spark-submit examples/batch_spark.py model.cam.onnx photos/ results.parquet

Without spark-submit (``PYSPARK_PYTHON=python python ...``) it runs on this machine. Needs pandas,
``pyspark`` and the packages of `[batch,cpu]`, on the executors too, and a path of the exported file
that they see. Spark repeats tasks that die and writes the table when all are done; one that is
stopped begins again. The rows are those of ``onnx-gradcam batch``, in Spark's order, with Spark's
numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.functions import monotonically_increasing_id
from pyspark.sql.pandas.types import from_arrow_schema

from onnx_gradcam.batch import BatchOptions
from onnx_gradcam.batch.frames import FrameExplainer
from onnx_gradcam.batch.schema import arrow_schema

IMAGES_PER_BATCH = 64
"""That a task has in memory at a time; Spark would take 10,000."""


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exported")
    parser.add_argument("inputs", help="a folder, or what else Spark reads files from")
    parser.add_argument("output")
    given = parser.parse_args()
    options = BatchOptions()

    def explained(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        explain = FrameExplainer(
            given.exported, options, column="content", number="number", device="cpu", threads=1
        )
        for batch in batches:
            yield from explain(batch).to_batches()

    spark: Any = SparkSession.builder.appName("onnx-gradcam").getOrCreate()
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", IMAGES_PER_BATCH)
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(given.inputs)
    images = files.select("path", "content", monotonically_increasing_id().alias("number"))
    table = images.mapInArrow(explained, from_arrow_schema(arrow_schema()))
    table.write.mode("error").parquet(given.output)
    spark.stop()


if __name__ == "__main__":
    main()
