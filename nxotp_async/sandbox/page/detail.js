// All that is known of one request: its message and callbacks, the signature, the headers, the answer.

import { ask, change, copy, element, phone, time } from "./dom.js";

const STATUSES = ["sent", "delivered", "read", "failed", "deleted"];
const REFRESH = 150; // milliseconds in which changes gather

export class Detail {
  constructor(panel, page) {
    this.panel = panel;
    this.page = page;
    this.number = null;
    this.order = []; // the numbers of the callbacks, as they are to be pushed
  }

  async open(number) {
    this.opener = document.activeElement;
    this.number = number;
    this.order = [];
    if (await this.refresh()) {
      this.panel.hidden = false;
      document.body.classList.add("detailed");
      this.panel.focus();
      this.panel.scrollTop = 0;
      this.page.render();
    }
  }

  close() {
    if (this.number === null) return;
    this.number = null;
    this.panel.hidden = true;
    document.body.classList.remove("detailed");
    this.page.render();
    if (this.opener?.isConnected) this.opener.focus();
  }

  /** Look again, if what has changed concerns what is shown. */
  changed(changes) {
    if (!this.shown) return;
    const { message_id: message, cus_message_id: own } = this.shown;
    const concerned = ({ kind, item }) =>
      kind === "hold" || (kind === "callback" && item.message_id === message) || (kind === "request" && own !== null && item.cus_message_id === own);
    if (this.number !== null && !this.timer && changes.some(concerned)) {
      this.timer = setTimeout(() => {
        this.timer = null;
        this.refresh();
      }, REFRESH);
    }
  }

  async refresh() {
    const number = this.number;
    if (number === null) return false;
    let shown;
    try {
      shown = await ask("GET", `requests/${number}`);
    } catch {
      this.close();
      return false;
    }
    if (number !== this.number) return false;
    const focused = document.activeElement?.dataset?.does;
    this.shown = shown;
    const top = this.panel.scrollTop;
    this.panel.replaceChildren(...this.parts(shown));
    this.panel.scrollTop = top;
    if (focused) this.panel.querySelector(`[data-does="${focused}"]`)?.focus();
    return true;
  }

  parts(shown) {
    return [
      element("div", { class: "detail-head" },
        element("h2", {}, `Request ${shown.number}`),
        element("button", { type: "button", class: "close", "data-does": "close", onclick: () => this.close() }, "Close"),
      ),
      verdict(shown),
      shown.otp && element("div", { class: "big" },
        element("span", { class: "otp" }, shown.otp),
        element("button", { type: "button", class: "copy", "data-does": "copy", "aria-label": `Copy ${shown.otp}`, onclick: () => copy(shown.otp) }, "Copy"),
      ),
      section("Message", pairs({
        to: phone(shown.to),
        content: shown.content,
        language: shown.language_code,
        cus_message_id: shown.cus_message_id,
        "message id": shown.message_id,
        arrived: time(shown.arrived_at),
      })),
      shown.message_id !== null && this.callbacks(shown),
      shown.attempts.length > 1 && section(`${shown.attempts.length} requests of this message`,
        element("ul", { class: "attempts" }, shown.attempts.map((each) => this.attempt(each))),
      ),
      section("Signature", signature(shown)),
      section("Answer", answer(shown)),
      section("Headers", pairs(Object.fromEntries(shown.headers.map(({ name, value }) => [name, value])))),
      section("Body", block(shown.body || "empty", "Body of the request")),
    ].filter(Boolean);
  }

  attempt({ number, arrived_at: at, code }) {
    const text = `${time(at)}, ${code === 0 ? "accepted" : `code ${code}`}`;
    const here = number === this.number;
    return element("li", {}, here ? element("b", {}, `${text} (this one)`)
      : element("button", { type: "button", class: "link", "data-does": `attempt-${number}`, onclick: () => this.open(number) }, text));
  }

  // ----------------------------------------------------------------------------------------- callbacks

  callbacks(shown) {
    const callbacks = shown.callbacks;
    const { state } = this.page;
    if (!state.pushing) {
      return section("Callbacks", element("p", { class: "soft" }, "This sandbox pushes none: start it with --callbacks or --webhook."));
    }
    const byNumber = new Map(callbacks.map((each) => [each.number, each]));
    this.order = [...this.order.filter((each) => byNumber.has(each)), ...byNumber.keys()].filter((each, index, all) => all.indexOf(each) === index);
    const hold = element("button", {
      type: "button", role: "switch", class: "switch", "aria-checked": String(state.hold), "data-does": "hold",
      onclick: () => change("PUT", "callbacks/hold", { hold: !state.hold }),
    }, "Hold new callbacks");
    return section("Callbacks",
      callbacks.length
        ? element("ol", { class: "timeline" }, this.order.map((number, index) => this.callback(byNumber.get(number), index)))
        : element("p", { class: "soft" }, "None: it has no dr_webhook that callbacks may go to, and there is no webhook."),
      element("div", { class: "actions" },
        callbacks.length > 1 && element("button", { type: "button", "data-does": "push-all", onclick: () => this.push(this.order) }, "Push in this order"),
        hold,
      ),
      this.another(shown),
    );
  }

  callback(callback, index) {
    const { number, status, state, tries, answer: code, forged } = callback;
    const pending = state === "held" || state === "waiting";
    const told = { held: "held", waiting: tries ? `tried ${tries} times` : "waiting", taken: "taken", refused: `given up after ${tries}`, dropped: "dropped" }[state];
    const name = `${status} (${number})`;
    const button = (does, text, label, onclick) =>
      element("button", { type: "button", class: "small", "data-does": `${does}-${number}`, "aria-label": `${label} ${name}`, onclick }, text);
    return element("li", { "data-state": state },
      element("div", { class: "event" }, this.page.statusChip(callback), " ",
        element("span", { class: "soft" }, `${time(callback.made_at)} · ${told}${code ? ` · HTTP ${code}` : ""}${forged ? " · wrong signature" : ""}`)),
      element("div", { class: "actions" },
        index > 0 && button("up", "↑", "Move up", () => this.moveUp(index)),
        button("push", state === "held" ? "Push" : "Resend", state === "held" ? "Push" : "Resend", () => this.push([number])),
        pending && button("drop", "Drop", "Drop", () => change("POST", "callbacks/drop", { numbers: [number] })),
        button("forge", "Forge", "Forge", () => this.add(status, true)),
      ),
    );
  }

  another(shown) {
    const select = element("select", { "aria-label": "Status of another callback", "data-does": "status" }, STATUSES.map((each) => element("option", {}, each)));
    return element("div", { class: "actions" }, select,
      element("button", { type: "button", "data-does": "another", onclick: () => this.add(select.value, false, shown) }, "Push another"));
  }

  push(numbers) {
    return change("POST", "callbacks/push", { numbers });
  }

  add(status, forged) {
    return change("POST", "callbacks", { message_id: this.shown.message_id, status, forged });
  }

  moveUp(index) {
    [this.order[index - 1], this.order[index]] = [this.order[index], this.order[index - 1]];
    this.refresh();
  }
}

function section(title, ...content) {
  return element("section", {}, element("h3", {}, title), ...content);
}

function pairs(values) {
  const rows = Object.entries(values).filter(([, value]) => value !== null && value !== "");
  return element("dl", { class: "pairs" }, rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
}

function block(text, label) {
  return element("pre", { tabindex: "0", role: "region", "aria-label": label }, text);
}

function verdict(shown) {
  const accepted = shown.message_id !== null;
  const text = accepted ? "Accepted" : shown.code ? `Refused with ${shown.code}` : "Not accepted";
  return element("p", { class: "verdict-line", "data-state": accepted ? "taken" : "refused" }, element("b", {}, text), shown.why ? `: ${shown.why}` : "");
}

function signature({ signature: { text, expected, given, first_difference: at }, ts_age: age }) {
  const marked = (value) => at === null
    ? [value]
    : [value.slice(0, at), element("mark", {}, value.slice(at, at + 1) || "∅"), value.slice(at + 1)];
  const row = (name, value) => element("div", {}, element("dt", {}, name), element("dd", { class: "mono" }, marked(value)));
  return [
    element("dl", { class: "pairs signs" }, row("expected", expected), row("given", given)),
    element("p", { class: at === null ? "good" : "bad" }, at === null ? "They are the same." : given ? `They differ from character ${at + 1} on.` : "There is no signature."),
    element("p", { class: "soft" }, age === null ? "There is no ts that is a time." : `ts was ${describeAge(age)} when the request came; 60 s are allowed.`),
    block(text, "The text that is signed"),
  ];
}

const describeAge = (age) => (age < 0 ? `${(-age).toFixed(3)} s ahead` : `${age.toFixed(3)} s old`);

function answer({ answer: given, fault }) {
  if (given === null) return element("p", {}, `None: ${fault.replaceAll("_", " ")}.`);
  const more = given.bytes > 4096 ? ` The first 4,096 of ${given.bytes.toLocaleString()} bytes:` : "";
  return [
    element("p", {}, `HTTP ${given.status}${given.delay ? `, ${given.delay} s late` : ""}.${more}`),
    pairs(Object.fromEntries(given.headers.map(({ name, value }) => [name, value]))),
    block(given.body || "empty", "Body of the answer"),
  ];
}
