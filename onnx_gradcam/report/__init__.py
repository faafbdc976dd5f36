"""Results of a batch in, one HTML page out that needs nothing else: no network, no server.

In reading order: `results` reads folders of results, `comparison` says how far two of them are
apart, `thumbnails` finds a small picture of each image, `block` packs it all for the browser,
`page` makes the HTML of it, `write` puts these together. What runs in the browser is in ``page/``.
"""

from onnx_gradcam.report.write import DEFAULT_LIMIT, ReportSummary, write_report

__all__ = ["DEFAULT_LIMIT", "ReportSummary", "write_report"]
