"""The environment that holds servers and their clients: see requirements/serving.txt."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

HOLDS = Path(os.environ.get("ONNX_GRADCAM_SERVING") or Path(sys.prefix) / "serving")
PYTHON = HOLDS / "bin" / "python"

collect_ignore = [] if find_spec("tritonclient") else ["inside"]
