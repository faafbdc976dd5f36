"use strict";

/* One image in large: all its classes, in all folders of results, side by side. */

const TILE_PIXELS = 288; // of the longer side of a heat map

class Detail {
  constructor(data, onClose) {
    this.data = data;
    this.dialog = document.getElementById("detail");
    this.title = document.getElementById("detail-title");
    this.place = document.getElementById("place");
    this.runs = document.getElementById("runs");
    this.marks = document.getElementById("marks");
    this.pictures = [];
    const on = (id, action) => document.getElementById(id).addEventListener("click", action);
    on("close", () => this.dialog.close());
    on("previous", () => this.step(-1));
    on("next", () => this.step(1));
    this.dialog.addEventListener("close", () => onClose(this.index));
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside what is in it
    });
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.marks.addEventListener("change", () => this.showMarks());
  }

  open(entries, index) {
    this.entries = entries;
    this.show(index);
    this.dialog.showModal();
    this.title.focus();
    document.documentElement.classList.add("covered");
  }

  key(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    const sliding = event.target.matches("input[type=range]");
    if (!(event.key in steps) || sliding || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.step(steps[event.key]);
  }

  step(by) {
    const wanted = this.index + by;
    if (wanted < 0 || wanted >= this.entries.length) return;
    this.show(wanted);
    this.runs.scrollTop = 0;
  }

  show(index) {
    this.index = index;
    const { image } = this.entries[index];
    const path = this.data.facts.paths[image];
    const name = nameOf(path);
    const folder = element("span", { className: "folder", text: path.slice(0, path.length - name.length) });
    this.title.replaceChildren(folder, name);
    this.place.textContent = `${index + 1} of ${this.entries.length}`;
    this.place.setAttribute("aria-label", `${path}, image ${index + 1} of ${this.entries.length}`);
    document.getElementById("previous").disabled = index === 0;
    document.getElementById("next").disabled = index === this.entries.length - 1;
    this.pictures = [];
    this.classes = this.classesOf(image);
    this.runs.style.setProperty("--columns", String(this.classes.length));
    const [runs, classes] = [this.data.runs.length, this.classes.length];
    const beside = runs > 1 && runs * classes <= 4;
    const kinds = { lone: runs * classes === 1, beside, several: runs > 1 && !beside, few: classes <= 4 };
    this.runs.style.setProperty("--folders", String(runs));
    for (const [kind, holds] of Object.entries(kinds)) this.runs.classList.toggle(kind, holds);
    this.runs.replaceChildren(...this.data.runs.map((run, number) => this.section(image, run, number)));
    this.showMarks();
  }

  /* The classes of an image in any folder, in the order of the first: one column of tiles each. */
  classesOf(image) {
    const rows = this.data.runs.flatMap((_, number) => this.data.rowsOf(image, number));
    return [...new Set(rows.map((row) => this.data.columns.class[row]))];
  }

  /* What one folder of results says of the image. */
  section(image, run, number) {
    const rows = this.data.rowsOf(image, number);
    const children = [];
    if (this.data.runs.length > 1) {
      const file = run.card[0][1].find(([label]) => label === "File");
      const small = element("small", { text: [run.method, file && file[1]].filter(Boolean).join(" · ") });
      children.push(element("h3", { children: [run.name, " ", small] }));
    }
    if (rows.length) {
      const byClass = (row) => this.classes.indexOf(this.data.columns.class[row]) + 1;
      rows.sort((one, other) => byClass(one) - byClass(other));
      const tiles = rows.map((row) => this.tile(image, row, number));
      rows.forEach((row, place) => tiles[place].style.setProperty("--column", String(byClass(row))));
      children.push(element("div", { className: "tiles", children: tiles }));
    } else {
      const text = run.errors[image] ? `Failed here: ${run.errors[image]}` : "This image is not in this folder.";
      children.push(element("p", { className: "absent", text }));
    }
    return element("section", { attributes: { "aria-label": run.name }, children });
  }

  tile(image, row, run) {
    const picture = new Picture(this.data, TILE_PIXELS);
    picture.show(image, row, run);
    this.pictures.push(picture);
    this.mark(picture, row);
    const name = element("strong", { text: this.data.className(row) });
    const score = element("span", { className: "score", text: numberText(this.data.columns.score[row], 4) });
    const head = element("p", { className: "caption", children: [name, score] });
    const facts = element("dl");
    for (const [label, text] of this.facts(row, run)) {
      facts.append(element("div", { children: [element("dt", { text: label }), element("dd", { text })] }));
    }
    const caption = element("figcaption", { children: [head, facts] });
    const figure = element("figure", { children: [picture.root, caption] });
    figure.style.setProperty("--ratio", String(picture.width / picture.height));
    return figure;
  }

  /* The peak as a ring and the box as a frame. */
  mark(picture, row) {
    const { box_x: xs, box_y: ys, box_width: widths, box_height: heights } = this.data.columns;
    const peak = peakOf(this.data, row);
    if (xs[row] >= 0) {
      const box = element("span", { className: "mark box" });
      picture.place(box, xs[row], ys[row], widths[row], heights[row]);
      picture.root.append(box);
    }
    if (peak) {
      const ring = element("span", { className: "mark peak" });
      picture.place(ring, peak.x + 0.5, peak.y + 0.5, 0, 0);
      picture.root.append(ring);
    }
  }

  showMarks() {
    this.runs.classList.toggle("unmarked", !this.marks.checked);
  }

  facts(row, run) {
    const { columns } = this.data;
    const facts = [];
    const peak = peakOf(this.data, row);
    const border = columns.border_peak[row] === BORDER ? ", at the border" : "";
    if (this.data.note(row)) facts.push(["Shows nothing", this.data.note(row)]);
    if (peak) facts.push(["Peak", `column ${peak.x}, row ${peak.y}${border}`]);
    if (columns.box_x[row] >= 0) {
      const size = `${columns.box_width[row]} × ${columns.box_height[row]}`;
      facts.push(["Box", `${size} at ${columns.box_x[row]}, ${columns.box_y[row]}`]);
    }
    if (!Number.isNaN(columns.entropy[row])) facts.push(["Entropy", numberText(columns.entropy[row])]);
    if (columns.map_height[row]) {
      facts.push(["Raw map", `${columns.map_height[row]} × ${columns.map_width[row]}`]);
    }
    if (run === 0 && this.data.runs.length > 1) {
      const other = this.data.runs[1].name;
      facts.push([`Drift from ${other}`, numberText(columns.drift[row])]);
      facts.push(["Change of score", Number.isNaN(columns.change[row]) ? "not explained there" : signed(columns.change[row])]);
    }
    return facts;
  }

  arrived(image = this.entries && this.entries[this.index].image) {
    for (const picture of this.pictures) if (picture.waiting) picture.showPhoto(image);
  }
}
