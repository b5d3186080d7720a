// Block Kit as HTML. A `host` tells names and takes what people do: {names, press(element, value, button), errors}.

import { el, note } from "./dom.js";
import { follow, link, mrkdwn, plain, textObject } from "./mrkdwn.js";

/** All blocks of a message or a view. */
export function renderBlocks(blocks, host) {
  return blocks.map((block) => {
    const draw = BLOCKS[block.type];
    const node = draw ? draw(block, host) : el("p", { class: "unknown" }, `(a ${block.type} block)`);
    node.dataset.blockId = block.block_id ?? "";
    return node;
  });
}

const BLOCKS = {
  header: (block) => el("h3", { class: "b-header" }, plain(block.text.text)),
  divider: () => el("hr"),
  section: (block, host) => el(
    "div", { class: block.accessory ? "b-section with-accessory" : "b-section" },
    el("div", { class: "b-text" },
      block.text && el("div", {}, textObject(block.text, host.names)),
      block.fields && el("div", { class: "b-fields" }, block.fields.map((field) => el("div", {}, textObject(field, host.names))))),
    block.accessory && renderElement(block.accessory, block, host)),
  context: (block, host) => el("div", { class: "b-context" }, block.elements.map((part) => (
    part.type === "image" ? picture(part) : el("span", {}, textObject(part, host.names))))),
  actions: (block, host) => el("div", { class: "b-actions" }, block.elements.map((part) => renderElement(part, block, host))),
  image: (block) => el("figure", {}, block.title && el("figcaption", {}, plain(block.title.text)), picture(block)),
  markdown: (block, host) => el("div", { class: "b-text" }, mrkdwn(block.text, host.names)),
  table: (block, host) => table(block, host),
  rich_text: (block, host) => el("div", { class: "b-text" }, block.elements.map((part) => richText(part, host))),
  input: (block, host) => field(block, host),
};

// Pictures are not fetched: this page loads nothing from elsewhere.
const picture = (part) => el("span", { class: "picture", role: "img", "aria-label": part.alt_text, title: part.alt_text }, "🖼");

function table(block, host) {
  const cell = (content) => (content.type === "rich_text" ? content.elements.map((part) => richText(part, host)) : plain(String(content.text ?? "")));
  const align = (index) => block.column_settings?.[index]?.align ?? "left";
  const row = (cells, tag) => el("tr", {}, cells.map((content, index) => (
    el(tag, { class: `align-${align(index)}`, scope: tag === "th" ? "col" : null }, cell(content)))));
  const [head, ...body] = block.rows;
  return el("div", { class: "b-table", tabindex: 0, role: "region", "aria-label": "Table" },
    el("table", {}, el("thead", {}, row(head, "th")), el("tbody", {}, body.map((cells) => row(cells, "td")))));
}

function richText(part, host) {
  const inner = () => part.elements.map((piece) => richText(piece, host));
  switch (part.type) {
    case "rich_text_section": return el("div", {}, inner());
    case "rich_text_quote": return el("blockquote", {}, inner());
    case "rich_text_preformatted": return el("pre", { tabindex: 0 }, inner());
    case "rich_text_list": return el(part.style === "ordered" ? "ol" : "ul", {}, part.elements.map((piece) => el("li", {}, richText(piece, host))));
    case "text": return styled(part);
    case "link": return link(part.url, part.text || part.url);
    case "user": return el("span", { class: "mention" }, `@${host.names.person(part.user_id) ?? part.user_id}`);
    case "usergroup": return el("span", { class: "mention" }, `@${host.names.group(part.usergroup_id) ?? "group"}`);
    case "channel": return el("span", { class: "mention" }, `#${host.names.channel(part.channel_id) ?? "channel"}`);
    case "emoji": return plain(`:${part.name}:`)[0];
    default: return "";
  }
}

function styled(part) {
  const style = part.style ?? {};
  const tags = [["code", "code"], ["bold", "strong"], ["italic", "em"], ["strike", "s"]];
  const spans = part.text.split("\n").flatMap((row, index) => (index ? [el("br"), row] : [row]));
  return tags.reduce((inside, [name, tag]) => (style[name] ? el(tag, {}, inside) : inside), el("span", {}, spans));
}

// --- elements

function renderElement(part, block, host) {
  if (part.type === "image") return picture(part);
  if (part.type === "button") return button(part, host);
  return control(part, block, host, true);
}

function button(part, host) {
  const node = el("button", {
    type: "button",
    class: part.style ?? "",
    "aria-label": part.accessibility_label,
    dataset: { actionId: part.action_id, value: part.value ?? "" },
    onclick: async () => {
      if (part.confirm && !(await confirmed(part.confirm, host))) return;
      if (part.url) follow(null, new URL(part.url));
      await busy(node, () => host.press(part, part.value));
    },
  }, plain(part.text.text), part.url && el("span", { "aria-hidden": "true" }, " ↗"));
  return node;
}

async function busy(node, act) {
  node.setAttribute("aria-busy", "true");
  node.disabled = true;
  try {
    const answer = await act();
    if (answer?.error && node.isConnected) {
      node.classList.add("failed");
      node.title = answer.shown ?? answer.error;
    }
    if (answer?.error) note(`⚠ ${answer.shown ?? answer.error}`, "warning");
  } finally {
    node.removeAttribute("aria-busy");
    node.disabled = false;
  }
}

/** Ask in the words that the app gave. */
function confirmed(confirm, host) {
  return new Promise((resolve) => {
    const answer = (value) => { dialog.close(); dialog.remove(); resolve(value); };
    const kind = confirm.style === "danger" ? "danger" : "primary";
    const dialog = el("dialog", { class: "confirm", dataset: { testid: "confirm" }, "aria-labelledby": "confirm-title" },
      el("h2", { id: "confirm-title" }, plain(confirm.title.text)),
      el("p", {}, textObject(confirm.text, host.names)),
      el("div", { class: "dialog-foot" },
        el("button", { type: "button", dataset: { testid: "confirm-no" }, onclick: () => answer(false) }, plain(confirm.deny.text)),
        el("button", { type: "button", class: kind, dataset: { testid: "confirm-yes" }, onclick: () => answer(true) }, plain(confirm.confirm.text))));
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); answer(false); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const optionsOf = (part) => [...(part.options ?? []), ...(part.option_groups ?? []).flatMap((group) => group.options)];
const ENTRY = { number_input: "number", email_text_input: "email", url_text_input: "url", datepicker: "date", timepicker: "time" };

/** Everything but a button. With `live`, a choice is sent to the app at once. */
function control(part, block, host, live, labelled = {}) {
  const send = (value) => live && host.press(part, value).then((answer) => answer?.error && note(`⚠ ${answer.shown ?? answer.error}`, "warning"));
  const attributes = { dataset: { actionId: part.action_id, input: block.type === "input" ? block.block_id : part.action_id }, "aria-label": labelled.id ? null : part.placeholder?.text ?? part.action_id, ...labelled };
  switch (part.type) {
    case "static_select": case "users_select": case "overflow":
      return select(part, host, attributes, send);
    case "radio_buttons": case "checkboxes": case "multi_static_select": case "multi_users_select":
      return choices(part, host, attributes, send);
    case "plain_text_input": case "number_input": case "email_text_input": case "url_text_input": case "datepicker": case "timepicker": {
      const tag = part.multiline ? "textarea" : "input";
      const node = el(tag, {
        ...attributes, type: part.multiline ? null : ENTRY[part.type] ?? "text", placeholder: part.placeholder?.text,
        maxlength: part.max_length ?? 3000, rows: part.multiline ? 4 : null, step: part.is_decimal_allowed ? "any" : null,
        onchange: () => send(node.value),
      });
      node.value = part.initial_value ?? part.initial_date ?? part.initial_time ?? "";
      return node;
    }
    default:
      return el("span", { class: "unknown" }, `(a ${part.type})`);
  }
}

function people(host) {
  return host.people.map((person) => ({ text: { type: "plain_text", text: person.real_name }, value: person.id }));
}

function select(part, host, attributes, send) {
  const options = part.type === "users_select" ? people(host) : optionsOf(part);
  const chosen = part.initial_option?.value ?? part.initial_user;
  const first = part.type === "overflow" ? "⋯ More" : part.placeholder?.text ?? "Choose…";
  const node = el("select", { ...attributes, onchange: async () => {
    if (part.type === "overflow" && part.confirm && !(await confirmed(part.confirm, host))) { node.value = ""; return; }
    const value = node.value;
    if (part.type === "overflow") node.value = "";
    if (value) send(value);
  } },
  !chosen && el("option", { value: "" }, first),
  options.map((option) => el("option", { value: option.value, selected: option.value === chosen }, plain(option.text.text))));
  return node;
}

function choices(part, host, attributes, send) {
  const type = part.type === "radio_buttons" ? "radio" : "checkbox";
  const options = part.type === "multi_users_select" ? people(host) : optionsOf(part);
  const chosen = [part.initial_option?.value, ...(part.initial_options ?? []).map((option) => option.value), ...(part.initial_users ?? [])];
  const name = `${attributes.dataset.input}-${part.action_id}`;
  const node = el("div", { ...attributes, class: "choices", role: type === "radio" ? "radiogroup" : "group" },
    options.map((option) => el("label", {},
      el("input", { type, name, value: option.value, checked: chosen.includes(option.value), onchange: () => send(chosenIn(node)) }),
      el("span", {}, textObject(option.text, host.names), option.description && el("small", {}, textObject(option.description, host.names))))));
  return node;
}

const chosenIn = (node) => [...node.querySelectorAll("input:checked")].map((box) => box.value).join(",");

let numbers = 0;

function field(block, host) {
  const id = `field-${++numbers}`;
  const error = host.errors?.[block.block_id];
  const multiple = ["radio_buttons", "checkboxes", "multi_static_select", "multi_users_select"].includes(block.element.type);
  const named = multiple ? { id, "aria-labelledby": `${id}-label` } : { id };
  const described = { ...named, "aria-describedby": `${id}-more`, "aria-invalid": error ? "true" : null };
  const label = [plain(block.label.text), block.optional && el("small", {}, " (optional)")];
  return el("div", { class: error ? "b-input invalid" : "b-input" },
    multiple ? el("span", { class: "label", id: `${id}-label` }, label) : el("label", { for: id }, label),
    control(block.element, block, host, Boolean(block.dispatch_action), described),
    el("div", { id: `${id}-more` },
      el("p", { class: "field-error", role: "alert", hidden: !error }, error ?? ""),
      block.hint && el("p", { class: "hint" }, plain(block.hint.text))));
}

/** What a form holds now, by block_id for inputs and by action_id elsewhere; several choices are joined with commas. */
export function valuesIn(node) {
  const values = {};
  for (const part of node.querySelectorAll("[data-input]")) {
    values[part.dataset.input] = part.classList.contains("choices") ? chosenIn(part) : part.value;
  }
  return values;
}
