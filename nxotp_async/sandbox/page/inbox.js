// The page of the sandbox: what comes over the stream of events, kept in memory and shown.

import { ask, byId, change, copy, element, phone, say, setText, time } from "./dom.js";
import { Detail } from "./detail.js";
import { Faults } from "./faults.js";
import { List } from "./list.js";

const VIEWS = ["messages", "requests", "faults"];
const MOST_PHONES = 200;
const PHONES_EVERY = 250; // milliseconds

const state = {
  requests: [], // the oldest first
  messages: [], // those of them whose message was sent
  phones: new Map(), // number -> how many messages; the one with the newest message last
  callbacks: new Map(), // message id -> number -> callback
  keep: 10_000,
  clockAhead: 0, // seconds by which the sandbox's clock is ahead of this one
  codeLife: 300,
  session: null,
  pushing: false,
  hold: false,
  view: "messages",
  search: "",
  to: null, // the phone that is selected
};

const now = () => Date.now() / 1000 + state.clockAhead;

// ------------------------------------------------------------------------------------------- what comes

function addRequest(item) {
  if (item.number <= (state.requests.at(-1)?.number ?? 0)) return; // it was in the list that was read
  item.haystack = [item.to, item.content, item.cus_message_id, item.message_id, item.why].join("\n").toLowerCase();
  state.requests.push(item);
  if (item.message_id === null) return;
  state.messages.push(item);
  const count = state.phones.get(item.to) ?? 0;
  state.phones.delete(item.to);
  state.phones.set(item.to, count + 1);
}

/** Forget the oldest, as the sandbox does. */
function trim() {
  const gone = state.requests.splice(0, Math.max(0, state.requests.length - state.keep));
  for (const { to, message_id: messageId } of gone) {
    if (messageId === null) continue;
    state.callbacks.delete(messageId);
    state.messages.shift();
    const count = state.phones.get(to) - 1;
    if (count) state.phones.set(to, count);
    else state.phones.delete(to);
  }
}

function forget() {
  state.requests.length = 0;
  state.messages.length = 0;
  state.phones.clear();
  state.callbacks.clear();
}

function addCallback(item) {
  if (!state.callbacks.has(item.message_id)) state.callbacks.set(item.message_id, new Map());
  state.callbacks.get(item.message_id).set(item.number, item);
}

export const callbacksOf = (messageId) => [...(state.callbacks.get(messageId)?.values() ?? [])];

const KINDS = {
  request: addRequest,
  callback: addCallback,
  faults: (rules) => faults.show(rules),
  hold: (hold) => {
    state.hold = hold;
  },
  clear: () => {
    forget();
    detail.close();
  },
};

function apply(changes) {
  for (const { kind, item } of changes) KINDS[kind]?.(item);
  trim();
  detail.changed(changes);
  render();
}

function connect() {
  let early = []; // what comes before the lists have been read
  const source = new EventSource("/sandbox/events");
  source.addEventListener("changes", (event) => {
    const changes = JSON.parse(event.data);
    if (early) early.push(...changes);
    else apply(changes);
  });
  source.addEventListener("hello", async (event) => {
    const hello = JSON.parse(event.data);
    early ??= [];
    try {
      await start(hello);
    } catch {
      return; // the stream breaks, too, and says hello again
    }
    const changes = early;
    early = null;
    apply(changes);
    setState("live");
  });
  source.addEventListener("error", () => {
    setState("lost");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  });
}

async function start(hello) {
  if (state.session && state.session !== hello.session) {
    notify("The sandbox was restarted. What it had received before is gone.");
    detail.close();
  }
  state.session = hello.session;
  state.keep = hello.keep;
  state.codeLife = hello.code_life;
  state.clockAhead = hello.now - Date.now() / 1000;
  state.pushing = hello.pushing;
  state.hold = hello.hold;
  const [{ requests }, { callbacks }] = await Promise.all([ask("GET", `requests?limit=${hello.keep}`), ask("GET", "callbacks")]);
  forget();
  requests.reverse().forEach(addRequest);
  callbacks.forEach(addCallback);
  faults.show(hello.faults);
}

const STATES = { connecting: "connecting", live: "live", lost: "no answer, trying again" };

function setState(name) {
  byId("state").dataset.state = name;
  setText(byId("state"), STATES[name]);
}

function notify(text) {
  byId("notice").hidden = !text;
  byId("notice").firstElementChild.textContent = text;
}

// ------------------------------------------------------------------------------------------- rows

function openButton(item, ...content) {
  return element("button", { type: "button", class: "open", onclick: () => detail.open(item.number) }, ...content);
}

const messageRows = {
  draw(item) {
    const row = element("div", { class: "row message" });
    row.append(
      openButton(
        item,
        element("span", { class: "to" }, phone(item.to)),
        element("span", { class: "otp" }, item.otp ?? "no code"),
        element("span", { class: "content" }, item.content),
        element("span", { class: "statuses" }),
      ),
      element("div", { class: "side" },
        element("time", { class: "soft" }, time(item.arrived_at)),
        element("span", { class: "life" }, element("span", { class: "left" }), element("span", { class: "meter" }, element("span"))),
        element("button", { type: "button", class: "copy", onclick: () => copy(item.otp), "aria-label": `Copy ${item.otp}` }, "Copy"),
      ),
    );
    return row;
  },
  update(row, item) {
    row.classList.toggle("selected", detail.number === item.number);
    updateLife(row, item);
    const statuses = row.querySelector(".statuses");
    const callbacks = callbacksOf(item.message_id);
    const shown = callbacks.map((each) => `${each.number}${each.state}`).join();
    if (statuses.dataset.shown === shown) return;
    statuses.dataset.shown = shown;
    statuses.replaceChildren(...callbacks.slice(-6).map(statusChip));
  },
};

function updateLife(row, item) {
  const left = item.expires_at - now();
  const expired = left <= 0;
  row.classList.toggle("expired", expired);
  const seconds = Math.ceil(left);
  setText(row.querySelector(".left"), expired ? "expired" : `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} left`);
  row.querySelector(".meter span").style.transform = `scaleX(${Math.max(0, Math.min(1, left / state.codeLife))})`;
}

export function statusChip(callback) {
  const marks = { taken: "✓", waiting: "…", held: "‖", refused: "✕", dropped: "–" };
  const name = `${callback.status}: ${callback.state}${callback.forged ? ", forged" : ""}`;
  const text = `${callback.forged ? "forged " : ""}${callback.status}`;
  // Who answers a forged one with 200 has not looked at its signature.
  const state = callback.forged ? callback.state === "taken" && "refused" : callback.state;
  return element("span", { class: "chip", "data-state": state, title: name }, element("span", { "aria-hidden": "true" }, marks[callback.state]), ` ${text}`);
}

const requestRows = {
  draw(item) {
    const accepted = item.message_id !== null;
    const verdict = accepted ? "accepted" : item.code ? `refused ${item.code}` : "not accepted";
    return element("div", { class: "row request" },
      openButton(
        item,
        element("time", { class: "soft" }, time(item.arrived_at)),
        element("span", { class: "to" }, phone(item.to)),
        element("span", { class: "chip verdict", "data-state": accepted ? (item.fault === "none" ? "taken" : "waiting") : "refused" }, verdict),
        element("span", { class: "why" }, item.why || item.content),
        item.attempt > 1 ? element("span", { class: "attempt" }, `try ${item.attempt}`) : null,
      ),
    );
  },
  update(row, item) {
    row.classList.toggle("selected", detail.number === item.number);
  },
};

// ------------------------------------------------------------------------------------------- showing

const lists = {
  messages: new List(byId("messages-list"), byId("messages-new"), messageRows),
  requests: new List(byId("requests-list"), byId("requests-new"), requestRows),
};

let due = false;

/** Draw before the next frame, however much changes until then. A page that nobody sees is drawn now and then. */
export function render() {
  if (due) return;
  due = true;
  const draw = () => {
    if (!due) return;
    due = false;
    drawAll();
  };
  requestAnimationFrame(draw);
  setTimeout(draw, 500);
}

function drawAll() {
  setText(byId("messages-count"), state.messages.length.toLocaleString());
  setText(byId("requests-count"), state.requests.length.toLocaleString());
  drawPhones();
  for (const name of VIEWS) byId(name).hidden = name !== state.view;
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const list = lists[state.view];
  if (!list) return;
  const all = state[state.view];
  const to = state.view === "messages" ? state.to : null;
  const shown = state.search || to !== null ? all.filter((item) => matches(item) && (to === null || item.to === to)) : all;
  list.show(shown);
  drawEmpty(byId(state.view).querySelector(".empty"), all.length, shown.length);
}

const matches = (item) => !state.search || item.haystack.includes(state.search);

function drawEmpty(empty, all, shown) {
  empty.hidden = all > 0;
  empty.parentElement.classList.toggle("nothing", all > 0 && shown === 0);
}

function drawPhones() {
  const { phones } = state;
  if (state.to !== null && !phones.has(state.to)) state.to = null;
  const signature = `${state.to}|${phones.size}|${state.messages.at(-1)?.number}|${state.messages.length}`;
  const listed = byId("phones");
  if (listed.dataset.shown === signature) return;
  if (state.to === drawPhones.to && performance.now() - drawPhones.at < PHONES_EVERY) {
    drawPhones.timer ??= setTimeout(() => {
      drawPhones.timer = null;
      render();
    }, PHONES_EVERY); // what changes faster nobody could read
    return;
  }
  listed.dataset.shown = signature;
  drawPhones.to = state.to;
  drawPhones.at = performance.now();
  const shown = [[null, state.messages.length], ...[...phones].slice(-MOST_PHONES).reverse()];
  const focused = document.activeElement?.dataset?.to;
  listed.replaceChildren(...shown.map(phoneItem));
  if (phones.size > MOST_PHONES) listed.append(element("li", { class: "soft more" }, `${(phones.size - MOST_PHONES).toLocaleString()} more: search for them`));
  if (focused !== undefined) [...listed.querySelectorAll("button")].find((each) => each.dataset.to === focused)?.focus({ preventScroll: true });
}

function phoneItem([to, count]) {
  const select = () => {
    state.to = to;
    lists.messages.scrollTo(0);
    render();
  };
  const name = to === null ? "All phones" : phone(to);
  return element("li", {}, element("button", { type: "button", "data-to": String(to), "aria-pressed": String(state.to === to), onclick: select },
    element("span", {}, name), element("span", { class: "count" }, count.toLocaleString())));
}

// ------------------------------------------------------------------------------------------- what one does

export function show(view) {
  state.view = VIEWS.includes(view) ? view : "messages";
  render();
}

const detail = new Detail(byId("detail"), { state, callbacksOf, render, statusChip });
const faults = new Faults(byId("faults"), byId("faults-count"));

function toggleTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  setTheme(shown === "dark" ? "light" : "dark");
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-pressed", String(theme === "dark"));
  localStorage.setItem("nxotp-theme", theme);
}

async function clear() {
  if (await change("POST", "clear")) say("Cleared");
}

function copyOne() {
  const list = lists[state.view];
  const item = list?.focused() ?? state.requests.find((each) => each.number === detail.number) ?? list?.items.findLast((each) => each.otp);
  if (item?.otp) copy(item.otp);
}

const KEYS = {
  "/": () => byId("search").focus(),
  j: () => lists[state.view]?.move(1),
  k: () => lists[state.view]?.move(-1),
  ArrowDown: () => lists[state.view]?.move(1),
  ArrowUp: () => lists[state.view]?.move(-1),
  c: copyOne,
  1: () => { location.hash = "messages"; },
  2: () => { location.hash = "requests"; },
  3: () => { location.hash = "faults"; },
  "?": () => byId("help").showModal(),
};

function pressed(event) {
  if (event.key === "Escape" && !byId("help").open) {
    if (document.activeElement === byId("search")) byId("search").blur();
    else detail.close();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  const inDetail = event.target.closest("#detail, .phones");
  const does = KEYS[event.key];
  if (!does || (inDetail && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  does();
}

const stored = localStorage.getItem("nxotp-theme");
if (stored === "dark" || stored === "light") setTheme(stored);
byId("theme").addEventListener("click", toggleTheme);
byId("clear").addEventListener("click", clear);
byId("keys").addEventListener("click", KEYS["?"]);
byId("notice").querySelector("button").addEventListener("click", () => notify(""));
byId("search").addEventListener("input", (event) => {
  state.search = event.target.value.trim().toLowerCase();
  for (const list of Object.values(lists)) list.scrollTo(0);
  render();
});
addEventListener("keydown", pressed);
addEventListener("hashchange", () => show(location.hash.slice(1)));
setInterval(() => {
  if (state.view === "messages") lists.messages.draw();
}, 1000);
show(location.hash.slice(1));
connect();
