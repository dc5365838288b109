// A list of any length, of which only what can be seen is drawn.

import { element } from "./dom.js";

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
    this.items = []; // by falling numbers
    this.drawn = new Map();
    this.unseen = 0;
    this.space = element("div", { class: "space", role: "list" });
    scroller.append(this.space);
    scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(scroller);
    fresh.addEventListener("click", () => this.toTop());
  }

  get height() {
    return parseFloat(getComputedStyle(this.scroller).getPropertyValue("--row"));
  }

  /** Show these items, and leave in place what is being read. */
  show(items) {
    const height = this.height;
    const index = Math.floor(this.scroller.scrollTop / height);
    const reading = this.scroller.scrollTop > height / 2 ? this.items[index] : undefined;
    const newest = this.items[0]?.number ?? 0;
    this.items = items;
    this.space.style.height = `${items.length * height}px`;
    if (reading) {
      const moved = this.indexOf(reading.number) - index;
      if (moved) this.scroller.scrollTop += moved * height;
      this.unseen += this.indexOf(newest);
    } else {
      this.unseen = 0;
    }
    this.draw();
  }

  /** The index of an item, or of the one that would follow it. */
  indexOf(number) {
    let low = 0;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.items[middle].number > number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  draw() {
    const height = this.height;
    const { scrollTop, clientHeight } = this.scroller;
    if (scrollTop <= height / 2) this.unseen = 0;
    this.fresh.hidden = this.unseen <= 0;
    this.fresh.textContent = `${this.unseen.toLocaleString()} new`;
    const first = Math.max(0, Math.floor(scrollTop / height) - BEYOND);
    const last = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / height) + BEYOND);
    const wanted = new Map();
    for (let index = first; index < last; index += 1) wanted.set(this.items[index].number, index);
    for (const [number, row] of this.drawn) {
      const index = this.indexOf(number);
      const focused = row.contains(document.activeElement) && this.items[index]?.number === number;
      if (focused) wanted.set(number, index); // a row with the focus stays, wherever it is
      else if (!wanted.has(number)) {
        row.remove();
        this.drawn.delete(number);
      }
    }
    for (const [number, index] of wanted) this.drawRow(number, index, height);
  }

  drawRow(number, index, height) {
    const item = this.items[index];
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
    row.style.transform = `translateY(${index * height}px)`;
    row.setAttribute("aria-setsize", this.items.length);
    row.setAttribute("aria-posinset", index + 1);
    this.rows.update(row, item);
  }

  toTop() {
    this.scroller.scrollTop = 0;
    this.draw();
    this.scroller.focus();
  }

  /** Move the focus to the next row, or to the one before; to the first one if none has it. */
  move(step) {
    const focused = [...this.drawn].find(([, row]) => row.contains(document.activeElement));
    const index = focused ? this.indexOf(focused[0]) + step : 0;
    if (index < 0 || index >= this.items.length) return;
    const height = this.height;
    const { scrollTop, clientHeight } = this.scroller;
    if (index * height < scrollTop) this.scroller.scrollTop = index * height;
    if ((index + 1) * height > scrollTop + clientHeight) this.scroller.scrollTop = (index + 1) * height - clientHeight;
    this.draw();
    this.drawn.get(this.items[index].number)?.querySelector("button")?.focus({ preventScroll: true });
  }

  /** The item whose row has the focus. */
  focused() {
    return this.items.find((item) => this.drawn.get(item.number)?.contains(document.activeElement));
  }
}
