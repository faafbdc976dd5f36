"use strict";

/* From raw maps to heat maps to colours, as onnx_gradcam/cam/postprocess.py and render.py do it. */

const EPSILON = 1e-7;

/* The heat map of a raw map at another size, values in [0, 1]: ReLU (or not, for methods whose zero
 * has no meaning), stretch, resize linearly with half-pixel centres, stretch again. */
function heatMap(raw, height, width, rectified) {
  const shown = Float32Array.from(raw.values, (value) => {
    const finite = Number.isNaN(value) ? 0 : Math.min(Math.max(value, -3.4028234e38), 3.4028234e38);
    return rectified ? Math.max(finite, 0) : finite;
  });
  stretch(shown);
  const result = resized(shown, raw.height, raw.width, height, width);
  stretch(result);
  return result;
}

function stretch(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const scale = 1 / (EPSILON + (high - low));
  for (let i = 0; i < values.length; i++) values[i] = (values[i] - low) * scale;
}

function resized(values, rows, columns, height, width) {
  const across = neighbours(columns, width);
  const down = neighbours(rows, height);
  const result = new Float32Array(height * width);
  for (let y = 0, at = 0; y < height; y++) {
    const above = down.lower[y] * columns;
    const below = down.upper[y] * columns;
    const v = down.fraction[y];
    for (let x = 0; x < width; x++, at++) {
      const left = across.lower[x];
      const right = across.upper[x];
      const u = across.fraction[x];
      const top = values[above + left] * (1 - u) + values[above + right] * u;
      const bottom = values[below + left] * (1 - u) + values[below + right] * u;
      result[at] = top * (1 - v) + bottom * v;
    }
  }
  return result;
}

/* The elements before and behind each pixel, and how near it is to the second. */
function neighbours(elements, pixels) {
  const lower = new Uint16Array(pixels);
  const upper = new Uint16Array(pixels);
  const fraction = new Float32Array(pixels);
  for (let i = 0; i < pixels; i++) {
    const place = Math.min(Math.max(((i + 0.5) * elements) / pixels - 0.5, 0), elements - 1);
    lower[i] = Math.floor(place);
    upper[i] = Math.min(lower[i] + 1, elements - 1);
    fraction[i] = place - lower[i];
  }
  return { lower, upper, fraction };
}

/* Writes the colours of heat into the pixels of an image, RGBA: their opacity grows with the heat.
 * The largest opacity is left to the style sheet, so that one slider changes all pictures. */
function paint(pixels, heat, colors) {
  const [coldest, hottest] = colors.ends;
  for (let i = 0; i < heat.length; i++) {
    const warm = Math.min(Math.max(heat[i], 0), 1);
    const level = 3 * Math.round((coldest + warm * (hottest - coldest)) * 255);
    const rise = Math.min(warm / colors.opaque_from, 1);
    pixels[4 * i] = colors.table[level];
    pixels[4 * i + 1] = colors.table[level + 1];
    pixels[4 * i + 2] = colors.table[level + 2];
    pixels[4 * i + 3] = Math.round(255 * rise * rise * (3 - 2 * rise));
  }
}

/* Draws the heat map of a row on a canvas whose longer side has so many pixels. */
function drawHeat(canvas, data, row, run, longer) {
  const raw = data.rawMap(row);
  canvas.hidden = raw === null || data.note(row) !== "";
  if (canvas.hidden) return;
  const { crop_width: widths, crop_height: heights } = data.columns;
  const scale = longer / Math.max(widths[row], heights[row]);
  canvas.width = Math.max(Math.round(widths[row] * scale), 1);
  canvas.height = Math.max(Math.round(heights[row] * scale), 1);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const heat = heatMap(raw, canvas.height, canvas.width, data.runs[run].rectified);
  paint(image.data, heat, data.facts.colors);
  context.putImageData(image, 0, 0);
}
