"use strict";

/* Puts the page together. */

/* What a card's badges say. */
function badgesOf(data) {
  return (image, row) => {
    const badges = [];
    if (data.note(row)) badges.push("shows nothing");
    if (data.columns.border_peak[row] === BORDER) badges.push("border");
    if (data.columns.differs[image] === DIFFERS) badges.push("other first class");
    const drift = data.columns.drift[row];
    if (!Number.isNaN(drift)) badges.push(`drift ${drift.toFixed(2)}`);
    return badges;
  };
}

function showHead(data) {
  const { facts } = data;
  const [run] = facts.runs;
  const entry = (section, label) => (run.card[section][1].find(([name]) => name === label) || [])[1];
  const words = [entry(0, "File"), run.method, entry(0, "Target layer"), `${entry(2, "Images")} images`];
  document.getElementById("subtitle").textContent = words.filter(Boolean).join(" · ");
  document.getElementById("version").textContent = facts.version;
  for (const text of noticesOf(data)) {
    document.getElementById("notices").append(element("p", { className: "notice", text }));
  }
}

/* What one has to know before looking. */
function noticesOf(data) {
  const { facts } = data;
  const notices = [];
  if (!facts.complete) notices.push("The batch has not reached its end: these are its results so far.");
  if (facts.left_out) {
    const all = data.images + facts.left_out;
    notices.push(`Of ${plural(all, "explained image")} this page shows ${data.images.toLocaleString("en")}, evenly spread over the batch; ${facts.left_out.toLocaleString("en")} are left out (--limit).`);
  }
  if (data.images && !data.columns.map_height.some((height) => height > 0)) {
    notices.push("The tables hold no raw maps (--no-maps), so that no heat maps can be drawn.");
  }
  if (facts.map_side) notices.push(`Maps with more than ${facts.map_side} rows or columns are shown with ${facts.map_side}.`);
  if (facts.without_picture) {
    const what = plural(facts.without_picture, "image");
    notices.push(`${what} could not be found again, and the batch kept no thumbnails: the heat maps stand alone there.`);
  }
  return notices;
}

function showCards(data) {
  const place = document.getElementById("cards");
  for (const run of data.runs) {
    const sections = run.card.map(([title, entries]) => {
      const list = element("dl");
      for (const [label, text] of entries) {
        list.append(element("div", { children: [element("dt", { text: label }), element("dd", { text })] }));
      }
      return element("section", { children: [element("h3", { text: title }), list] });
    });
    const head = data.runs.length > 1 ? [element("h2", { text: run.name })] : [];
    place.append(element("div", { className: "run", children: [...head, ...sections] }));
  }
}

function showFailures(facts) {
  const panel = document.getElementById("failures");
  panel.hidden = facts.failed === 0;
  const listed = facts.failures.length < facts.failed ? `, the first ${facts.failures.length} of them` : "";
  panel.querySelector("summary").textContent = `${plural(facts.failed, "image")} failed${listed}`;
  const fill = () => {
    const body = panel.querySelector("tbody");
    if (body.childElementCount) return;
    const rows = facts.failures.map((cells) =>
      element("tr", { children: cells.map((text) => element("td", { text })) }),
    );
    body.append(...rows);
  };
  panel.addEventListener("toggle", fill);
}

/* One opacity for all heat maps, whichever of the sliders is moved. */
function linkSliders(colors) {
  const sliders = [...document.querySelectorAll(".opacity-slider")];
  const set = (value) => {
    document.documentElement.style.setProperty("--opacity", String(value / 100));
    for (const slider of sliders) slider.value = value;
  };
  for (const slider of sliders) slider.addEventListener("input", () => set(slider.value));
  document.getElementById("controls").addEventListener("reset", () => setTimeout(() => set(100 * colors.opacity), 0));
  set(100 * colors.opacity);
}

function drawLegend(colors) {
  const context = document.getElementById("legend").getContext("2d");
  const image = context.createImageData(context.canvas.width, 1);
  paint(image.data, Float32Array.from({ length: image.width }, (_, i) => i / (image.width - 1)), colors);
  context.putImageData(image, 0, 0);
}

/* On narrow screens the filters fold away. */
function foldChoices() {
  const narrow = window.matchMedia("(max-width: 40rem)");
  const fold = () => { document.getElementById("choices").open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  fold();
}

function start() {
  const data = new Data();
  const gallery = new Gallery(
    document.getElementById("gallery"), data, (index) => detail.open(gallery.entries, index), badgesOf(data),
  );
  const detail = new Detail(data, (index) => {
    document.documentElement.classList.remove("covered");
    gallery.focus(index);
  });
  const filters = new Filters(data, () => show());
  const count = document.getElementById("count");
  const show = () => {
    const entries = filters.entries();
    const all = entries.length === data.images;
    count.textContent = all ? plural(data.images, "image") : `${entries.length.toLocaleString("en")} of ${plural(data.images, "image")}`;
    document.getElementById("nothing").hidden = entries.length > 0;
    gallery.show(entries);
  };
  document.getElementById("show-all").addEventListener("click", () => {
    filters.form.reset();
    filters.parts.search.focus();
  });
  showHead(data);
  showCards(data);
  showFailures(data.facts);
  linkSliders(data.facts.colors);
  drawLegend(data.facts.colors);
  foldChoices();
  show();
  performance.mark("gallery shown");
  document.addEventListener("DOMContentLoaded", () => {
    gallery.arrived();
    detail.arrived();
  });
}

start();
