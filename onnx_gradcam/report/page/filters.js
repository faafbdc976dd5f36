"use strict";

/* Which images are shown, with which of their classes, in which order. */

const TYPING = 200; // milliseconds to wait for the next letter

const DIFFERS = 1; // as in onnx_gradcam/report/block.py
const BORDER = 1; // of the column border_peak; 2 stands for null

/* Which images each kind holds: its words, and whether an image with a row belongs to it. */
const KINDS = {
  all: ["All", () => true],
  nothing: ["Shows nothing", (data, image, row) => data.note(row) !== ""],
  border: ["Peak at the border", (data, image, row) => data.columns.border_peak[row] === BORDER],
  differs: ["Other first class", (data, image) => data.columns.differs[image] === DIFFERS],
};

/* Orders: their words, the value of an image and its row, and whether the largest comes first. */
const ORDERS = {
  order: ["order in the batch", (data, image) => data.columns.number[image], false],
  scoreDown: ["score, highest first", (data, image, row) => data.columns.score[row], true],
  scoreUp: ["score, lowest first", (data, image, row) => data.columns.score[row], false],
  entropyDown: ["entropy, widest first", (data, image, row) => data.columns.entropy[row], true],
  entropyUp: ["entropy, narrowest first", (data, image, row) => data.columns.entropy[row], false],
  border: ["peak at the border first", (data, image, row) => Number(data.columns.border_peak[row] === BORDER), true],
  drift: ["drift, largest first", (data, image, row) => data.columns.drift[row], true],
  change: ["change of score, largest first", (data, image, row) => Math.abs(data.columns.change[row]), true],
};
const OF_COMPARISON = ["drift", "change"];

class Filters {
  constructor(data, onChange) {
    this.data = data;
    this.onChange = onChange;
    this.form = document.getElementById("controls");
    this.parts = Object.fromEntries(
      ["search", "class", "lowest", "highest", "sort"].map((id) => [id, document.getElementById(id)]),
    );
    this.paths = data.facts.paths.map((path) => path.toLowerCase());
    this.fillClasses();
    this.fillOrders();
    this.fillKinds();
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("change", (event) => this.changed(event, 0));
    this.form.addEventListener("input", (event) => this.changed(event, TYPING));
    this.form.addEventListener("reset", () => setTimeout(() => this.onChange(), 0));
  }

  changed(event, wait) {
    if (event.target.classList.contains("opacity-slider")) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.onChange(), wait);
  }

  /* All classes explained in any image, by name, with the number of images. */
  fillClasses() {
    const counts = new Map();
    for (let image = 0; image < this.data.images; image++) {
      for (const row of this.data.rowsOf(image)) {
        const number = this.data.columns.class[row];
        counts.set(number, (counts.get(number) || 0) + 1);
      }
    }
    const names = [...counts].map(([number, count]) => [this.data.facts.classes[number][1], number, count]);
    names.sort((one, other) => one[0].localeCompare(other[0], "en") || one[1] - other[1]);
    const options = names.map(([name, number, count]) => new Option(`${name} (${count})`, String(number)));
    this.parts.class.replaceChildren(new Option("first of each image", ""), ...options);
  }

  fillOrders() {
    const compared = this.data.runs.length > 1;
    for (const [key, [words]] of Object.entries(ORDERS)) {
      if (compared || !OF_COMPARISON.includes(key)) this.parts.sort.append(new Option(words, key));
    }
  }

  fillKinds() {
    const place = document.getElementById("kinds");
    for (const [key, [words, belongs]] of Object.entries(KINDS)) {
      let count = 0;
      for (let image = 0; image < this.data.images; image++) {
        count += belongs(this.data, image, this.data.rowsOf(image)[0]);
      }
      if (!count && key !== "all") continue;
      const input = element("input", { attributes: { type: "radio", name: "kind", value: key } });
      input.defaultChecked = key === "all";
      const number = element("span", { className: "number", text: count.toLocaleString("en") });
      place.append(element("label", { children: [input, element("span", { children: [words, " ", number] })] }));
    }
    place.hidden = place.querySelectorAll("input").length < 2;
  }

  /* The row of an image that is shown: of the class that is asked for, else the first; -1 without. */
  rowOf(image) {
    const wanted = this.parts.class.value;
    const rows = this.data.rowsOf(image);
    if (wanted === "") return rows[0];
    const found = rows.find((row) => this.data.columns.class[row] === Number(wanted));
    return found === undefined ? -1 : found;
  }

  /* The images to show: [{image, row}], in order. */
  entries() {
    const words = this.parts.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const lowest = this.parts.lowest.value === "" ? -Infinity : Number(this.parts.lowest.value);
    const highest = this.parts.highest.value === "" ? Infinity : Number(this.parts.highest.value);
    const limited = lowest > -Infinity || highest < Infinity;
    const belongs = KINDS[this.form.elements.kind.value || "all"][1];
    const found = [];
    for (let image = 0; image < this.data.images; image++) {
      const row = this.rowOf(image);
      if (row < 0 || !belongs(this.data, image, row)) continue;
      if (!words.every((word) => this.paths[image].includes(word))) continue;
      const score = this.data.columns.score[row];
      if (limited && !(score >= lowest && score <= highest)) continue;
      found.push({ image, row });
    }
    return this.sorted(found);
  }

  sorted(entries) {
    const [, value, down] = ORDERS[this.parts.sort.value];
    const keyed = entries.map((entry) => [value(this.data, entry.image, entry.row), entry]);
    keyed.sort(([one], [other]) => {
      if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other);
      return down ? other - one : one - other;
    });
    return keyed.map(([, entry]) => entry);
  }
}
