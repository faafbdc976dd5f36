"""What notebooks show of an explanation: values of pictures, words, and what never happens."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_gradcam import notebook
from onnx_gradcam.errors import MissingDependencyError, UsageError
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.render import colorize, overlay
from onnx_gradcam.runtime import Explanation
from onnx_gradcam.runtime.preprocess import crop_geometry

WHOLE = crop_geometry((300, 400), Preprocessing(resize=(20, 20)))
CROPPED = crop_geometry((300, 400), Preprocessing(resize=30, crop=(20, 20)))
PHOTO = np.random.default_rng(8).integers(0, 256, (300, 400, 3), np.uint8)


def spot(*places: tuple[int, ...], size: tuple[int, ...] = (20, 20)) -> NDArray[np.float32]:
    """Return maps that are 1 at a place each, falling off with the distance."""
    axes = np.meshgrid(*(np.arange(extent) for extent in size), indexing="ij")
    maps = [np.exp(-sum((a - at) ** 2 for a, at in zip(axes, p, strict=True)) / 8) for p in places]
    return np.array(maps, np.float32)


def explanation(**changes: Any) -> Explanation:
    maps = changes.pop("cams", spot((5, 15), (14, 2)))
    rows, axes = len(maps), maps.ndim - 1
    fields: dict[str, Any] = {
        "scores": np.tile(np.array([0.25, 0.75], np.float32), (rows, 1)),
        "classes": np.arange(rows) % 2,
        "cams": maps,
        "raw_maps": np.ones((rows, *(4,) * axes), np.float32),
        "activations": np.random.default_rng(1).random((rows, 3, *(4,) * axes), np.float32),
        "gradients": np.random.default_rng(2).random((rows, 3, *(4,) * axes), np.float32),
        "method": "gradcam",
        "labels": ("cat", "dog"),
        "notes": ("",) * rows,
        "photo": PHOTO,
        "geometry": WHOLE,
    }
    return Explanation(**(fields | changes))


def alone(cams: NDArray[np.float32], **changes: Any) -> Explanation:
    return explanation(cams=cams, photo=None, geometry=None, **changes)


class Page(HTMLParser):
    """The tags of a page: images with their attributes, and its text."""

    def __init__(self, page: str | None) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str]] = []
        self.text = ""
        assert page is not None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append({name: value or "" for name, value in attrs})

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"

    def picture(self, number: int) -> NDArray[np.uint8]:
        found = re.fullmatch(r"data:image/(jpeg|png);base64,(.+)", self.images[number]["src"])
        assert found is not None
        data = np.frombuffer(base64.b64decode(found[2]), np.uint8)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def test_an_explanation_in_one_line() -> None:
    assert repr(explanation()) == (
        "<Explanation by gradcam: cat (25.0%, rank 2 of 2); dog (75.0%, rank 1 of 2)>"
    )
    many = explanation(cams=spot(*((n, n) for n in range(9))))
    assert repr(many).endswith("; cat (25.0%, rank 2 of 2); 6 more>")
    assert repr(explanation(cams=spot())) == "<Explanation by gradcam: no heat maps>"


def test_the_page_shows_photo_heat_maps_and_scale() -> None:
    page = Page(explanation()._repr_html_())
    assert set(page.tags) == {"div", "figure", "img", "figcaption", "b", "br"}
    assert [image["alt"] for image in page.images] == [
        "The photo, 400 x 300 pixels",
        "Heat map of cat (25.0%, rank 2 of 2) by gradcam: highest 77% from the left, 27% from the"
        " top",
        "Heat map of dog (75.0%, rank 1 of 2) by gradcam: highest 12% from the left, 72% from the"
        " top",
        "colour scale from less to more evidence",
    ]
    assert page.text.split("\n")[:4] == ["photo", "400 x 300", "cat", "25.0%, rank 2 of 2"]
    small = cv2.resize(PHOTO, (320, 240), interpolation=cv2.INTER_AREA)
    expected = overlay(small, cv2.resize(spot((5, 15))[0], (320, 240)))
    found = page.picture(1)
    assert found.shape == expected.shape
    blurred = [cv2.blur(p.astype(np.float32), (15, 15)) for p in (found, expected)]
    assert np.abs(blurred[0] - blurred[1]).max() < 12, "a JPEG of what is expected"
    assert np.abs(blurred[1] - cv2.blur(small.astype(np.float32), (15, 15))).max() > 60


def test_names_cannot_break_out_of_the_page() -> None:
    page = Page(explanation(labels=("<script>alert(1)</script>", '"><b onload="x'))._repr_html_())
    assert "script" not in page.tags
    assert all(image.keys() == {"src", "alt", "width", "height"} for image in page.images[:3])
    assert "<script>alert(1)</script>" in page.text
    assert page.images[2]["alt"].startswith('Heat map of "><b onload="x (')


def test_what_the_model_did_not_see_is_told() -> None:
    assert "pale: not seen" not in Page(explanation()._repr_html_()).text
    page = Page(explanation(geometry=CROPPED)._repr_html_())
    assert "pale: not seen by the model" in page.text
    # columns 100 to 299 of 400 were seen; highest in column 15 of 20 of these
    assert "highest 64% from the left" in page.images[1]["alt"]


def test_a_map_that_shows_nothing_says_why() -> None:
    empty = explanation(cams=np.zeros((1, 20, 20), np.float32), notes=("nowhere positive",))
    page = Page(empty._repr_html_())
    assert page.images[1]["alt"].endswith("by gradcam: empty, nowhere positive")
    assert "empty: nowhere positive" in page.text


def test_many_heat_maps_are_told_of() -> None:
    many = explanation(cams=spot(*((n % 20, n % 7) for n in range(30))))
    page = Page(many._repr_html_())
    assert len(page.images) == 1 + 12 + 1
    assert "12 of 30 heat maps" in page.text
    assert many._repr_png_() is not None


def test_arrays_are_shown_without_a_photo() -> None:
    page = Page(alone(spot((5, 15)))._repr_html_())
    assert len(page.images) == 2
    expected = colorize(cv2.resize(spot((5, 15))[0], (320, 320)))
    assert np.abs(page.picture(0).astype(int) - expected).max() < 25
    signal = Page(alone(spot((75,), size=(100,)))._repr_html_())
    assert signal.picture(0).shape == (notebook.STRIP_HEIGHT, 320, 3)
    assert "highest 75% from the left" in signal.images[0]["alt"]
    volume = Page(alone(spot((3, 2, 15), size=(6, 20, 20)))._repr_html_())
    assert "77% from the left, 12% from the top" in volume.images[0]["alt"]
    assert "25.0%, rank 2 of 2, slice 3 of 6" in volume.text


def test_the_png() -> None:
    data = explanation()._repr_png_()
    assert data is not None
    sheet = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    small = cv2.resize(PHOTO, (256, 192), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(sheet[14 : 14 + 192, 14 : 14 + 256], small)
    assert sheet.shape[1] == 14 + 3 * (256 + 14)
    array = alone(spot((5, 15)))._repr_png_()
    assert array is not None
    assert cv2.imdecode(np.frombuffer(array, np.uint8), cv2.IMREAD_COLOR).shape[1] == 2 * 14 + 256


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": np.zeros((0, 0), np.float32)},
        {"cams": np.zeros((2, 0, 0), np.float32)},
        {"geometry": None},
        {"labels": ("cat",)},
        {"cams": np.zeros((2, 2, 2, 2, 2), np.float32), "photo": None},
        {"method": None},
    ],
)
def test_showing_never_fails(changes: dict[str, Any]) -> None:
    odd = explanation(**changes)
    assert isinstance(repr(odd), str)
    for form in (odd._repr_html_(), odd._repr_png_()):
        assert form is None or len(form) > 0


def test_showing_loads_no_matplotlib() -> None:
    code = (
        "import sys; from tests.test_notebook import explanation; e = explanation();"
        "assert e._repr_html_() and e._repr_png_() and repr(e);"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_loading_the_runtime_loads_nothing_that_draws() -> None:
    code = (
        "import sys; from onnx_gradcam.runtime import Explanation;"
        "print('onnx_gradcam.notebook' in sys.modules, 'onnx_gradcam.render' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'onnx-gradcam\[notebook\]'"):
        explanation().plot()


@pytest.fixture
def pyplot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Matplotlib without windows, all figures closed afterwards."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    module = pytest.importorskip("matplotlib.pyplot")
    module.switch_backend("agg")
    yield module
    module.close("all")


def drawn(figure: Any) -> list[Any]:
    """Return the axes that hold a picture of their own, not the colour scale."""
    return [axes for axes in figure.axes if axes.get_images() and axes.get_label() != "<colorbar>"]


def titles(figure: Any) -> list[str]:
    return [axes.get_title() for axes in drawn(figure)]


def test_a_figure(pyplot: Any) -> None:
    figure = explanation().plot()
    assert titles(figure) == [
        "photo\n400 x 300",
        "cat\n25.0%, rank 2 of 2",
        "dog\n75.0%, rank 1 of 2",
    ]
    photo, cat, _ = (axes.get_images()[0].get_array() for axes in drawn(figure))
    np.testing.assert_array_equal(photo, PHOTO)
    np.testing.assert_array_equal(cat, overlay(PHOTO, WHOLE.to_photo(spot((5, 15))[0])))
    assert pyplot.get_fignums() == [figure.number], "plt.show() shows it"
    figure.canvas.draw()


def test_rows_columns_and_no_photo(pyplot: Any) -> None:
    many = explanation(cams=spot(*((n, n) for n in range(6))))
    figure = many.plot(rows=[5, 0, -1], columns=2, photo=False)
    assert [title.split("\n")[0] for title in titles(figure)] == ["dog", "cat", "dog"]
    grid = figure.axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (2, 2)
    assert titles(many.plot(1)) == ["photo\n400 x 300", "dog\n75.0%, rank 1 of 2"]
    figure.canvas.draw()


def test_methods_side_by_side(pyplot: Any) -> None:
    shown = explanation()
    figure = shown.plot(method=["gradcam", "hirescam", "layercam"])
    assert [title.split("\n")[0] for title in titles(figure)] == [
        *("photo", "cat, gradcam", "cat, hirescam", "cat, layercam"),
        *("photo", "dog, gradcam", "dog, hirescam", "dog, layercam"),
    ]
    cams = shown.with_method("hirescam").cams
    expected = overlay(PHOTO, WHOLE.to_photo(cams[1]))
    np.testing.assert_array_equal(drawn(figure)[6].get_images()[0].get_array(), expected)
    one = shown.plot(0, method="layercam", photo=False)
    assert titles(one) == ["cat\n25.0%, rank 2 of 2"]
    with pytest.raises(UsageError, match="runs nothing; ask the explainer"):
        shown.plot(method="rise")
    figure.canvas.draw()


def test_given_axes(pyplot: Any) -> None:
    figure, axes = pyplot.subplots(1, 3)
    assert explanation().plot(ax=axes[1:]) is figure
    assert [len(a.get_images()) for a in axes] == [0, 1, 1]
    explanation().plot(0, ax=axes[0])
    assert axes[0].get_title() == "cat\n25.0%, rank 2 of 2"
    with pytest.raises(UsageError, match="2 heat maps cannot be drawn on 3 axes"):
        explanation().plot(ax=axes)


def test_names_are_no_formulas_and_stay_within_their_place(pyplot: Any) -> None:
    long = "African bush elephant, Loxodonta africana, known for its size and its ears"
    figure = explanation(labels=("$\\frac{cat", long)).plot()
    assert titles(figure)[1].startswith("$\\frac{cat\n")
    *name, score = titles(figure)[2].split("\n")
    assert len(name) == 2
    assert name[1].endswith(" ...")
    assert all(len(line) <= notebook.LINE for line in (*name, score))
    figure.canvas.draw()


def test_more_than_a_figure_holds(pyplot: Any) -> None:
    many = explanation(cams=spot(*((n % 20, n % 7) for n in range(30))))
    figure = many.plot()
    assert len(drawn(figure)) == 13
    assert figure.get_suptitle() == "12 of 30 heat maps"
    assert len(drawn(many.plot(range(15)))) == 16


@pytest.mark.parametrize(("rows", "message"), [(2, "no heat map 2: .* has 2"), ([], "to draw")])
def test_rows_that_are_not_there(pyplot: Any, rows: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explanation().plot(rows)


def test_a_figure_of_arrays(pyplot: Any) -> None:
    figure = alone(spot((75,), (10,), size=(100,))).plot()
    assert titles(figure) == ["cat\n25.0%, rank 2 of 2", "dog\n75.0%, rank 1 of 2"]
    figure.canvas.draw()
    with pytest.raises(UsageError, match="no heat map to draw"):
        alone(spot()).plot()


def test_jupyter_shows_a_figure_once(pyplot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a value of a cell it is shown by IPython, which then must not find it open."""
    import matplotlib

    figure = explanation().plot()
    with pytest.raises(NotImplementedError):
        figure._ipython_display_()
    assert pyplot.get_fignums() == [figure.number], "a window stays open"
    monkeypatch.setattr(
        matplotlib, "get_backend", lambda: "module://matplotlib_inline.backend_inline"
    )
    with pytest.raises(NotImplementedError):
        figure._ipython_display_()
    assert pyplot.get_fignums() == []
