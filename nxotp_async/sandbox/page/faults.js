// The faults: switches for the usual ones, a form for any other, and what is switched on.

import { ask, change, element, phone, Refusal, say, setText } from "./dom.js";

const USUAL = [
  ["Refused", [
    ["-1, request failed", { kind: "code", code: -1 }],
    ["1003, invalid signature", { kind: "code", code: 1003 }],
    ["9001, system error", { kind: "code", code: 9001 }],
    ["9005, balance too low", { kind: "code", code: 9005 }],
    ["Meta's 131056, recipient limit", { kind: "meta", code: 131056 }],
    ["Meta's 130429, sender limit", { kind: "meta", code: 130429 }],
  ]],
  ["HTTP", [
    ["429 with Retry-After", { kind: "http", code: 429, retry_after: 1 }],
    ["500", { kind: "http", code: 500 }],
    ["502, although accepted", { kind: "http", code: 502 }],
    ["503", { kind: "http", code: 503 }],
  ]],
  ["Connection", [
    ["Cut before reading", { kind: "disconnect_before_reading" }],
    ["Cut after reading", { kind: "disconnect_after_reading" }],
    ["Never answered", { kind: "hang" }],
    ["Two seconds late", { kind: "none", latency: 2 }],
  ]],
  ["Answer", [
    ["Only half of it", { kind: "truncated" }],
    ["Wrong types", { kind: "wrong_types" }],
    ["Without a message id", { kind: "without_id" }],
    ["A megabyte", { kind: "huge" }],
  ]],
];
const KINDS = {
  code: "a code of the vendor's", meta: "a code of Meta's", http: "an HTTP status", none: "only late",
  disconnect_before_reading: "cut before reading", disconnect_after_reading: "cut after reading", hang: "never answered",
  truncated: "half an answer", wrong_types: "wrong types", without_id: "without a message id", drip: "an endless answer", huge: "a megabyte",
};
const WITH_CODE = ["code", "meta", "http"];

export class Faults {
  constructor(section, counter) {
    this.counter = counter;
    this.rules = [];
    this.problem = element("p", { class: "problem", role: "alert", hidden: true });
    this.to = field("to", "Number", { placeholder: "all numbers", inputmode: "tel", autocomplete: "off" });
    this.share = field("probability", "Share of requests, %", { type: "number", min: 0, max: 100, step: "any", value: 100 });
    this.latency = field("latency", "Late by, s", { type: "number", min: 0, max: 60, step: "any", value: 0 });
    this.active = element("ul", { class: "rules" });
    this.none = element("p", { class: "soft" }, "Every request is answered as the vendor would.");
    this.kind = element("select", { id: "fault-kind", onchange: () => this.showCode() }, Object.entries(KINDS).map(([kind, name]) => element("option", { value: kind }, name)));
    this.code = field("code", "Code", { type: "number", step: 1 });
    this.switches = [];
    section.append(
      element("div", { class: "column" },
        element("h2", {}, "Switched on"), this.none, this.active,
        element("button", { type: "button", class: "all-off", onclick: () => change("DELETE", "faults") }, "Switch all off"),
      ),
      element("div", { class: "column wide" },
        element("h2", {}, "Faults"),
        element("p", { class: "soft" }, "For one number or for all, for every request or for a share of them, at once or late. A fault for a number goes before one for all."),
        element("div", { class: "fields" }, this.to.label, this.share.label, this.latency.label),
        this.problem,
        element("div", { class: "groups" }, USUAL.map(([title, faults]) => element("fieldset", {}, element("legend", {}, title), faults.map((each) => this.toggle(...each))))),
        element("h3", {}, "Any other"),
        element("form", { class: "fields", novalidate: true, onsubmit: (event) => this.submit(event) },
          element("label", { for: "fault-kind" }, element("span", {}, "Kind"), this.kind), this.code.label,
          element("button", { class: "primary" }, "Switch on"),
        ),
      ),
    );
    this.showCode();
    this.show([]);
  }

  toggle(name, fault) {
    const made = element("button", { type: "button", role: "switch", class: "switch", "aria-checked": "false", onclick: () => this.flip(fault) }, name);
    this.switches.push([made, fault]);
    return made;
  }

  async flip(fault) {
    const on = this.rules.filter((rule) => same(rule, fault));
    if (on.length) await Promise.all(on.map((rule) => change("DELETE", `faults/${rule.number}`)));
    else await this.add(fault);
  }

  submit(event) {
    event.preventDefault();
    const kind = this.kind.value;
    this.add({ kind, ...(WITH_CODE.includes(kind) ? { code: number(this.code.input) } : {}) });
  }

  /** Switch a fault on, with what is chosen for all of them; say which field is wrong, if one is. */
  async add(fault) {
    const late = number(this.latency.input);
    const chosen = { probability: (number(this.share.input) ?? 100) / 100, ...(late ? { latency: late } : {}) };
    const to = this.to.input.value.trim();
    const fields = { ...fault, ...chosen, ...(to ? { to } : {}) };
    const inputs = { to: this.to, probability: this.share, latency: this.latency, code: this.code };
    for (const { input } of Object.values(inputs)) input.removeAttribute("aria-invalid");
    this.problem.hidden = true;
    try {
      await ask("POST", "faults", fields);
    } catch (error) {
      this.problem.textContent = error instanceof Refusal ? error.message : "The sandbox does not answer.";
      this.problem.hidden = false;
      const wrong = inputs[error.field]?.input;
      wrong?.setAttribute("aria-invalid", "true");
      wrong?.focus();
    }
  }

  showCode() {
    this.code.label.hidden = !WITH_CODE.includes(this.kind.value);
  }

  show(rules) {
    this.rules = rules;
    setText(this.counter, String(rules.length));
    this.none.hidden = rules.length > 0;
    this.active.parentElement.querySelector(".all-off").hidden = rules.length < 2;
    for (const [made, fault] of this.switches) made.setAttribute("aria-checked", String(rules.some((rule) => same(rule, fault))));
    this.active.replaceChildren(...rules.map((rule) => element("li", {},
      element("div", {}, element("b", {}, rule.description),
        element("span", { class: "soft" }, `${rule.to ? phone(rule.to) : "all numbers"}, ${percent(rule.probability)} of requests`)),
      element("button", { type: "button", "aria-label": `Switch off ${rule.description}`, onclick: () => this.off(rule) }, "Off"),
    )));
  }

  async off(rule) {
    if (await change("DELETE", `faults/${rule.number}`)) say("Switched off");
  }
}

const number = (input) => (input.value.trim() === "" ? null : Number(input.value));

const percent = (share) => `${Number((share * 100).toPrecision(3))} %`;

function same(rule, fault) {
  return rule.kind === fault.kind && rule.code === (fault.code ?? null) && (fault.kind !== "none" || rule.latency > 0);
}

function field(name, text, attributes) {
  const input = element("input", { id: `fault-${name}`, ...attributes });
  return { input, label: element("label", { for: `fault-${name}` }, element("span", {}, text), input) };
}
