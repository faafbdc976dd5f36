"use strict";

/* The data of the page, as onnx_gradcam/report/block.py packs them. Rows of all images and folders
 * stand one after another; `groups` says which belong to an image of a folder. */

const ARRAY_TYPES = {
  f8: Float64Array, f4: Float32Array, i4: Int32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array,
};
const NO_PICTURE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

const textOf = (id) => document.getElementById(id).textContent;

function bytesOf(base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/* The number that 16 bits are in half precision. */
function float16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

class Data {
  constructor() {
    this.facts = JSON.parse(textOf("facts"));
    this.runs = this.facts.runs;
    this.images = this.facts.paths.length;
    const packed = bytesOf(textOf("arrays")).buffer;
    this.columns = {};
    for (const [name, [type, offset, length]] of Object.entries(this.facts.arrays)) {
      this.columns[name] = new ARRAY_TYPES[type](packed, offset, length);
    }
    this.maps = new Uint16Array(bytesOf(textOf("maps")).buffer);
    this.mapStarts = this.startsOfMaps();
    this.pieces = new Map();
  }

  startsOfMaps() {
    const { map_height: heights, map_width: widths } = this.columns;
    const starts = new Uint32Array(heights.length);
    for (let row = 0, at = 0; row < heights.length; row++) {
      starts[row] = at;
      at += heights[row] * widths[row];
    }
    return starts;
  }

  /* The rows of an image in a folder of results, the first rank first. */
  rowsOf(image, run = 0) {
    const group = image * this.runs.length + run;
    const rows = [];
    for (let row = this.columns.starts[group]; row < this.columns.starts[group + 1]; row++) rows.push(row);
    return rows;
  }

  className(row) {
    return this.facts.classes[this.columns.class[row]][1];
  }

  /* Why a map shows nothing; empty where it shows something. */
  note(row) {
    return this.facts.notes[this.columns.note[row]];
  }

  /* The raw map of a row: {height, width, values}; null where the table holds none. */
  rawMap(row) {
    const height = this.columns.map_height[row];
    const width = this.columns.map_width[row];
    if (!height) return null;
    const scale = this.columns.map_scale[row];
    const start = this.mapStarts[row];
    const values = Float32Array.from(this.maps.subarray(start, start + height * width), (bits) => float16(bits) * scale);
    return { height, width, values };
  }

  /* The picture of an image as an address; empty where it has none, null while it is not yet here. */
  picture(image) {
    const size = this.facts.pictures_per_piece;
    const piece = Math.floor(image / size);
    if (!this.pieces.has(piece)) {
      const last = document.getElementById(`pictures-${piece + 1}`) === null;
      if (last && document.readyState === "loading") return null; // its end may still be under way
      this.pieces.set(piece, textOf(`pictures-${piece}`).split("\n"));
    }
    const encoded = this.pieces.get(piece)[image % size];
    return encoded ? `data:image/jpeg;base64,${encoded}` : "";
  }
}
