"use strict";

/* The gallery: only the cards that are on the screen exist, so that its length costs nothing. */

const NARROWEST = 168; // of a card, in pixels
const GAP = 14;
const FRAME = 0.78; // height of a picture's frame for its width
const CAPTION = 3.6; // height of a caption in rem
const ROWS_AHEAD = 2;
const CARD_PIXELS = 96; // of the longer side of a heat map

class Card {
  constructor(data, number, open) {
    this.data = data;
    this.picture = new Picture(data, CARD_PIXELS);
    this.name = element("span", { className: "name", attributes: { "aria-hidden": "true" } });
    this.score = element("span", { className: "score", attributes: { "aria-hidden": "true" } });
    this.path = element("span", { className: "path" });
    this.badges = element("span", { className: "badges" });
    const frame = element("span", { className: "frame", children: [this.picture.root, this.badges] });
    const caption = element("span", { className: "caption", children: [this.name, this.score] });
    this.button = element("button", {
      className: "card", attributes: { type: "button" }, children: [frame, caption, this.path],
    });
    this.button.addEventListener("click", () => open(this.index));
    this.root = element("li", { className: "item", children: [this.button] });
    this.index = number;
  }

  show(index, entry, total, extra) {
    const { image, row } = entry;
    this.index = index;
    this.root.setAttribute("aria-posinset", String(index + 1));
    this.root.setAttribute("aria-setsize", String(total));
    if (this.image === image && this.row === row && !this.picture.waiting) return;
    [this.image, this.row] = [image, row];
    this.picture.show(image, row);
    this.name.textContent = this.data.className(row);
    this.score.textContent = numberText(this.data.columns.score[row]);
    this.path.textContent = nameOf(this.data.facts.paths[image]);
    this.button.title = this.data.facts.paths[image];
    this.badges.replaceChildren(...extra(image, row).map((text) => element("span", { text })));
  }
}

class Gallery {
  constructor(list, data, open, extra) {
    this.list = list;
    this.data = data;
    this.open = open;
    this.extra = extra;
    this.entries = [];
    this.cards = new Map();
    this.spare = [];
    this.current = 0;
    this.columns = 1;
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("focusin", (event) => this.focused(event));
    window.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(list.parentElement);
  }

  show(entries) {
    this.entries = entries;
    this.current = 0;
    this.measure();
  }

  measure() {
    const width = this.list.clientWidth;
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.columns = Math.max(Math.floor((width + GAP) / (NARROWEST * Math.max(rem / 16, 0.75) + GAP)), width > 300 ? 2 : 1);
    this.cardWidth = (width - GAP * (this.columns - 1)) / this.columns;
    this.frameHeight = Math.round(this.cardWidth * FRAME);
    this.rowHeight = this.frameHeight + Math.round(CAPTION * rem) + GAP;
    const rows = Math.ceil(this.entries.length / this.columns);
    this.list.style.height = `${rows * this.rowHeight}px`;
    this.list.style.setProperty("--frame", `${this.frameHeight}px`);
    this.render();
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => this.render());
  }

  /* First and last card on the screen, with some rows more. */
  range(more) {
    const top = -this.list.getBoundingClientRect().top;
    const first = Math.floor(top / this.rowHeight) - more;
    const last = Math.floor((top + window.innerHeight) / this.rowHeight) + more;
    return [Math.max(first * this.columns, 0), Math.min((last + 1) * this.columns, this.entries.length)];
  }

  render() {
    this.waiting = 0;
    const [first, end] = this.range(ROWS_AHEAD);
    const inside = this.list.contains(document.activeElement);
    if (!inside && (this.current < first || this.current >= end)) [this.current] = this.range(0);
    for (const [index, card] of this.cards) {
      const kept = (index >= first && index < end) || (inside && index === this.current);
      if (kept && index < this.entries.length) continue;
      this.cards.delete(index);
      card.root.remove();
      this.spare.push(card);
    }
    for (let index = first; index < end; index++) this.place(index);
    if (this.current < this.entries.length) this.place(this.current);
    this.spare.length = Math.min(this.spare.length, 64);
  }

  place(index) {
    let card = this.cards.get(index);
    const added = !card;
    if (added) {
      card = this.spare.pop() || new Card(this.data, index, this.open);
      this.cards.set(index, card);
    }
    card.show(index, this.entries[index], this.entries.length, this.extra);
    card.button.tabIndex = index === this.current ? 0 : -1;
    const x = (index % this.columns) * (this.cardWidth + GAP);
    const y = Math.floor(index / this.columns) * this.rowHeight;
    card.root.style.width = `${this.cardWidth}px`;
    card.root.style.transform = `translate(${x}px, ${y}px)`;
    if (added) this.insert(card, index);
  }

  /* Keeps the order of the document that of the images, for those who go through it. */
  insert(card, index) {
    let after = null;
    for (const [other, each] of this.cards) {
      if (other > index && (after === null || other < after.index)) after = each;
    }
    this.list.insertBefore(card.root, after ? after.root : null);
  }

  /* Pictures that had not arrived when their cards were drawn. */
  arrived() {
    for (const card of this.cards.values()) if (card.picture.waiting) card.picture.showPhoto(card.image);
  }

  focused(event) {
    for (const [index, card] of this.cards) {
      if (card.root.contains(event.target)) this.current = index;
    }
    for (const [index, card] of this.cards) card.button.tabIndex = index === this.current ? 0 : -1;
  }

  key(event) {
    const page = Math.max(Math.floor(window.innerHeight / this.rowHeight) - 1, 1) * this.columns;
    const end = this.entries.length;
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns,
      PageDown: page, PageUp: -page, Home: -end, End: end,
    };
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.focus(this.current + steps[event.key]);
  }

  /* Brings a card onto the screen and gives it the focus. */
  focus(index) {
    if (!this.entries.length) return;
    this.current = Math.min(Math.max(index, 0), this.entries.length - 1);
    const bar = document.getElementById("controls").getBoundingClientRect();
    const hidden = Math.max(bar.bottom, 0) * (getComputedStyle(document.getElementById("controls")).position === "sticky");
    const y = this.list.getBoundingClientRect().top + Math.floor(this.current / this.columns) * this.rowHeight;
    const below = y + this.rowHeight - window.innerHeight;
    if (y < hidden + GAP) window.scrollBy(0, y - hidden - GAP);
    else if (below > 0) window.scrollBy(0, below);
    this.place(this.current);
    this.cards.get(this.current).button.focus({ preventScroll: true });
    this.render();
  }
}
