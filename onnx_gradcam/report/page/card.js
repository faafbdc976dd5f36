"use strict";

/* Elements and words that the gallery and the view of one image have in common. */

/* An element with a class, text, attributes and children. All text of results becomes text. */
function element(tag, { className = "", text = "", attributes = {}, children = [] } = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const plural = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

function numberText(value, digits = 3) {
  if (Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 10 ** digits) return value.toExponential(digits - 1);
  return value.toPrecision(digits);
}

const signed = (value) => (value > 0 ? "+" : "") + numberText(value);

const percent = (part, whole) => `${(100 * part) / whole}%`;

function peakOf(data, row) {
  const x = data.columns.peak_x[row];
  return x < 0 ? null : { x, y: data.columns.peak_y[row] };
}

/* What a picture shows, for those who do not see it. */
function description(data, row) {
  const words = [`heat map of ${data.className(row)}`, `score ${numberText(data.columns.score[row])}`];
  const peak = peakOf(data, row);
  if (data.note(row)) words.push(`shows nothing: ${data.note(row)}`);
  if (peak) words.push(`peak at column ${peak.x}, row ${peak.y}`);
  return words.join(", ");
}

/* The last part of a path, which tells images apart most often. */
const nameOf = (path) => path.slice(path.lastIndexOf("/", path.length - 2) + 1) || path;

/* A picture with its heat map; `show` changes what it shows. */
class Picture {
  constructor(data, longer) {
    this.data = data;
    this.longer = longer;
    this.photo = element("img", { attributes: { decoding: "async", draggable: "false" } });
    this.heat = element("canvas", { className: "heat", attributes: { "aria-hidden": "true" } });
    this.seen = element("span", { className: "seen" });
    this.root = element("span", { className: "picture", children: [this.photo, this.seen, this.heat] });
  }

  show(image, row, run = 0) {
    const { width: widths, height: heights } = this.data.columns;
    this.width = widths[image];
    this.height = heights[image];
    this.root.style.setProperty("--ratio", String(this.width / this.height));
    this.photo.alt = description(this.data, row);
    this.showPhoto(image);
    this.placeCrop(row);
    drawHeat(this.heat, this.data, row, run, this.longer);
  }

  showPhoto(image) {
    const address = this.data.picture(image);
    this.waiting = address === null;
    this.root.classList.toggle("no-photo", address === "");
    const wanted = address || NO_PICTURE;
    if (this.photo.getAttribute("src") !== wanted) this.photo.src = wanted;
  }

  /* Puts the heat map where the model saw the photo; what it did not see is paler. */
  placeCrop(row) {
    const { crop_x: xs, crop_y: ys, crop_width: widths, crop_height: heights } = this.data.columns;
    const crop = [xs[row], ys[row], widths[row], heights[row]];
    for (const part of [this.heat, this.seen]) this.place(part, ...crop);
    const all = crop[0] <= 0 && crop[1] <= 0 && crop[0] + crop[2] >= this.width && crop[1] + crop[3] >= this.height;
    this.seen.hidden = all;
  }

  /* Puts a part over a rectangle of the photo, in its pixels. */
  place(part, x, y, width, height) {
    part.style.left = percent(x, this.width);
    part.style.top = percent(y, this.height);
    part.style.width = percent(width, this.width);
    part.style.height = percent(height, this.height);
  }
}
