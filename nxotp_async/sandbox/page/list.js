// A list of any length, of which only what can be seen is drawn.

import { element, setText } from "./dom.js";

const BEYOND = 4; // rows drawn above and below what is seen

export class List {
  /**
   * @param {HTMLElement} scroller what scrolls
   * @param {HTMLButtonElement} fresh the button that says how many have come while one was reading
   * @param {{draw: (item) => HTMLElement, update: (row: HTMLElement, item) => void}} rows how a row is made and kept true
   */
  constructor(scroller, fresh, rows) {
    this.scroller = scroller;
    this.fresh = fresh;
    this.rows = rows;
    this.items = []; // the oldest first; shown is the newest first
    this.drawn = new Map();
    this.unseen = 0;
    // Asking for these would have the browser lay the page out in the middle of a change.
    this.top = 0;
    this.visible = 0;
    this.height = 0;
    this.space = element("div", { class: "space", role: "list" });
    scroller.append(this.space);
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    new ResizeObserver(() => this.resized()).observe(scroller);
    fresh.addEventListener("click", () => this.toTop());
  }

  scrolled() {
    this.top = this.scroller.scrollTop;
    this.draw();
  }

  resized() {
    this.height = parseFloat(getComputedStyle(this.scroller).getPropertyValue("--row"));
    this.visible = this.scroller.clientHeight;
    this.space.style.height = `${this.items.length * this.height}px`;
    this.scrolled();
  }

  scrollTo(top) {
    this.scroller.scrollTop = top;
    this.scrolled();
  }

  at(index) {
    return this.items[this.items.length - 1 - index];
  }

  /** Show these items, the oldest first, and leave in place what is being read. */
  show(items) {
    const index = Math.floor(this.top / this.height);
    const reading = this.top > this.height / 2 ? this.at(index)?.number : undefined;
    const newest = this.at(0)?.number ?? 0;
    this.items = items.slice();
    this.space.style.height = `${items.length * this.height}px`;
    this.unseen += this.indexOf(newest);
    const moved = reading === undefined ? 0 : this.indexOf(reading) - index;
    if (moved) this.scrollTo(this.top + moved * this.height);
    else this.draw();
  }

  /** The index of an item, or of the one that would follow it. */
  indexOf(number) {
    let low = 0;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.at(middle).number > number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  draw() {
    if (!this.height) return;
    if (this.top <= this.height / 2) this.unseen = 0;
    this.fresh.hidden = this.unseen <= 0;
    setText(this.fresh, `${this.unseen.toLocaleString()} new`);
    const first = Math.max(0, Math.floor(this.top / this.height) - BEYOND);
    const last = Math.min(this.items.length, Math.ceil((this.top + this.visible) / this.height) + BEYOND);
    const wanted = new Map();
    for (let index = first; index < last; index += 1) wanted.set(this.at(index).number, index);
    for (const [number, row] of this.drawn) {
      if (wanted.has(number)) continue;
      const index = this.indexOf(number);
      if (row.contains(document.activeElement) && this.at(index)?.number === number) wanted.set(number, index); // keeps the focus
      else {
        row.remove();
        this.drawn.delete(number);
      }
    }
    for (const [number, index] of wanted) this.drawRow(number, index);
  }

  drawRow(number, index) {
    const item = this.at(index);
    let row = this.drawn.get(number);
    if (!row) {
      row = this.rows.draw(item);
      row.setAttribute("role", "listitem");
      row.dataset.number = number;
      this.drawn.set(number, row);
      // In the order of the list, so that Tab and screen readers follow it. Rows never change places.
      const next = [...this.space.children].find((each) => Number(each.dataset.number) < number);
      this.space.insertBefore(row, next ?? null);
    }
    row.style.transform = `translateY(${index * this.height}px)`;
    row.setAttribute("aria-setsize", this.items.length);
    row.setAttribute("aria-posinset", index + 1);
    this.rows.update(row, item);
  }

  toTop() {
    this.scrollTo(0);
    this.scroller.focus();
  }

  /** Move the focus to the next row, or to the one before; to the first one if none has it. */
  move(step) {
    const focused = [...this.drawn].find(([, row]) => row.contains(document.activeElement));
    const index = focused ? this.indexOf(focused[0]) + step : 0;
    if (index < 0 || index >= this.items.length) return;
    const top = index * this.height;
    if (top < this.top) this.scrollTo(top);
    if (top + this.height > this.top + this.visible) this.scrollTo(top + this.height - this.visible);
    this.draw();
    this.drawn.get(this.at(index).number)?.querySelector("button")?.focus({ preventScroll: true });
  }

  /** The item whose row has the focus. */
  focused() {
    return this.items.find((item) => this.drawn.get(item.number)?.contains(document.activeElement));
  }
}
