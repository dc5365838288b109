// Elements, texts and requests. Whatever comes from a message becomes a text node, never markup.

export const byId = (id) => document.getElementById(id);

/** Make an element. Names that begin with "on" are listeners; true and false set and leave out an attribute. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Set a text, if it has changed. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export const time = (seconds) => clock.format(seconds * 1000);

export const phone = (to) => (/^\d+$/.test(to) ? `+${to}` : to || "no number");

export function say(text) {
  const said = byId("said");
  said.textContent = text;
  said.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => said.classList.remove("shown"), 2500);
}

/** What the sandbox has refused, with the field that is wrong. */
export class Refusal extends Error {
  constructor(problem) {
    super(problem.detail);
    this.field = problem.field;
  }
}

/** Ask the sandbox, and return its answer. */
export async function ask(method, path, fields) {
  const body = fields === undefined ? {} : { body: JSON.stringify(fields), headers: { "Content-Type": "application/json" } };
  const answer = await fetch(`/sandbox/${path}`, { method, ...body });
  const content = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw new Refusal(content);
  return content;
}

/** Ask the sandbox for a change. Say so, and return null, if it refuses. */
export async function change(method, path, fields) {
  try {
    return await ask(method, path, fields);
  } catch (error) {
    say(error instanceof Refusal ? error.message : "The sandbox does not answer.");
    return null;
  }
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Away from loopback, a page over plain http has no clipboard.
    const field = element("textarea", { "aria-hidden": "true", class: "offscreen" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say(`Copied ${text}`);
}
