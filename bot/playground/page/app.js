// The page: follows one person's view of the workspace and sends what this person does.

import { renderBlocks, valuesIn } from "./blockkit.js";
import { el, note, refresh } from "./dom.js";
import { mrkdwn } from "./mrkdwn.js";
import { aimFiles, drawWorld, tick, told } from "./panels.js";

const HOME = "home";
const byId = (id) => document.getElementById(id);
const open = new Set(); // threads that are unfolded
const seen = new Map(); // newest message seen, by person and place
let state = null;
let you = sessionStorage.getItem("you") ?? "";
let place = "";
let following = new AbortController();
let forHome = "";

// --- the server

async function follow() {
  for (;;) {
    const since = state && state.you === you ? state.version : "";
    following = new AbortController();
    try {
      const answer = await fetch(`state?you=${encodeURIComponent(you)}&since=${since}`, { signal: following.signal });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = await answer.json();
      if (you && fresh.you !== you && fresh.people.some((person) => person.id === you)) continue;
      state = fresh;
      you = fresh.you;
      document.body.classList.remove("offline");
      draw();
    } catch (error) {
      if (error.name === "AbortError") continue;
      document.body.classList.add("offline");
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

async function act(name, said) {
  try {
    const answer = await fetch(name, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ you, ...said }),
    });
    if (!answer.ok) throw new Error(await answer.text());
    const content = await answer.json();
    if (name === "switch") told(content);
    return content;
  } catch (error) {
    note(`⚠ The demo did not answer: ${error.message}`, "warning");
    return { error: "unreachable", shown: error.message };
  }
}

// --- names

const names = {
  person: (id) => (id === state.bot.id ? state.bot.name : state.people.find((person) => person.id === id)?.real_name),
  channel: (id) => state.channels.find((channel) => channel.id === id)?.name,
  group: (id) => state.groups[id],
};

const KINDS = {
  member: "member", guest: "guest", single_channel_guest: "single-channel guest", stranger: "from another company", deactivated: "deactivated",
};

function avatar(id) {
  if (id === state.bot.id) return el("span", { class: "avatar app", "aria-hidden": "true" }, "🚀");
  if (id === "USLACKBOT") return el("span", { class: "avatar app", "aria-hidden": "true" }, "✱");
  const name = names.person(id) ?? "?";
  const index = Math.max(0, state.people.findIndex((person) => person.id === id));
  return el("span", { class: `avatar hue-${index % 6}`, "aria-hidden": "true" }, name.split(/\s+/).map((word) => word[0]).slice(0, 2).join(""));
}

// --- drawing

function draw() {
  const channels = state.channels.filter((channel) => !channel.direct || channel.messages.length);
  if (place !== HOME && !channels.some((channel) => channel.id === place)) place = channels.find((channel) => !channel.direct)?.id ?? channels[0]?.id ?? "";
  drawPeople();
  drawPlaces(channels);
  const channel = channels.find((known) => known.id === place);
  drawGuide(channel?.messages.length === 0);
  drawTalk(channel);
  drawModal();
  drawWorld(state.world, act);
}

function drawPeople() {
  refresh(byId("people"), state.people.map((person) => {
    const current = person.id === you;
    return {
      key: person.id,
      data: [person, current],
      make: () => el("li", {}, el("button", {
        type: "button", id: `as-${person.id}`, dataset: { testid: `persona-${person.id}` }, "aria-pressed": String(current),
        disabled: person.kind === "deactivated", onclick: () => become(person.id),
      }, avatar(person.id), el("span", { class: "who" }, el("strong", {}, person.real_name), el("small", {}, person.role || KINDS[person.kind])))),
    };
  }));
}

function drawPlaces(channels) {
  const current = channels.find((channel) => channel.id === place);
  if (current) seen.set(`${you} ${place}`, newest(current));
  const entry = (channel) => {
    const label = channel.direct ? state.bot.name : channel.name;
    const unread = newest(channel) > (seen.get(`${you} ${channel.id}`) ?? (channel.direct ? "" : newest(channel)));
    if (!channel.direct && !seen.has(`${you} ${channel.id}`)) seen.set(`${you} ${channel.id}`, newest(channel));
    return {
      key: channel.id,
      data: [label, channel.id === place, unread],
      make: () => placeButton(channel.id, channel.direct ? "✉" : channel.private ? "🔒" : "#", label, unread),
    };
  };
  refresh(byId("places"), channels.filter((channel) => !channel.direct).map(entry));
  const home = { key: HOME, data: place === HOME, make: () => placeButton(HOME, "⌂", "promote-bot · Home", false) };
  const apps = [...(state.home || place === HOME ? [home] : []), ...channels.filter((channel) => channel.direct).map(entry)];
  refresh(byId("apps"), apps);
  byId("apps-part").hidden = !apps.length;
}

const step = (text) => el("li", {}, ...mrkdwn(text, names));

function drawGuide(atStart) {
  const steps = state.world.guide ?? [];
  byId("guide").hidden = !steps.length || atStart;
  refresh(byId("steps"), steps.map((text) => ({ key: text, data: text, make: () => step(text) })));
}

/** What an empty channel says: where to begin. */
function welcome() {
  const steps = state.world.guide ?? [];
  if (!steps.length) return el("p", { class: "empty" }, "Nothing here yet. Type a command below, or press one of the suggestions.");
  return el("div", { class: "empty welcome" }, el("h2", {}, "Take a version from CI to prod"), el("ol", {}, steps.map(step)));
}

const newest = (channel) => channel.messages.reduce((last, message) => (message.ts > last ? message.ts : last), "");

function placeButton(id, sign, label, unread) {
  return el("li", {}, el("button", {
    type: "button", id: `go-${id}`, class: unread ? "unread" : "", dataset: { testid: `place-${id}` },
    "aria-current": id === place ? "page" : null, onclick: () => go(id),
  }, el("span", { class: "sign", "aria-hidden": "true" }, sign), label, unread && el("span", { class: "badge" }, "new")));
}

function drawTalk(channel) {
  const atHome = place === HOME;
  byId("place-title").textContent = atHome ? "promote-bot · Home" : channel ? (channel.direct ? `✉ ${state.bot.name}` : `# ${channel.name}`) : "No channel";
  byId("place-note").textContent = atHome ? `As ${names.person(you)} sees it` : channel ? (channel.direct ? `Direct messages to ${names.person(you)}` : `${channel.members} members · you are ${names.person(you)}`) : `${names.person(you)} is in no channel`;
  byId("composer").hidden = atHome || !channel || channel.archived;
  drawHints();
  const log = byId("log");
  const items = atHome ? homeItems() : (channel?.messages ?? []).map((message) => messageItem(message, channel));
  if (!items.length) items.push({ key: "empty", data: [place, state.world.guide], make: welcome });
  const arrived = log.dataset.place !== `${you} ${place}`;
  const stick = arrived || log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.dataset.place = `${you} ${place}`;
  refresh(log, items);
  if (atHome && arrived) log.scrollTop = 0;
  else if (stick && !atHome) log.scrollTop = log.scrollHeight;
}

function drawHints() {
  const input = byId("text");
  input.placeholder = `Message as ${names.person(you)}, or type /promote …`;
  refresh(byId("hints"), state.suggestions.map((text) => ({
    key: text,
    data: text,
    make: () => el("button", { type: "button", class: "hint-button", title: text, dataset: { testid: "suggestion" }, onclick: () => { input.value = text; input.focus(); } }, text.replace(/^\/promote /, "")),
  })));
}

function homeItems() {
  if (!state.home) return [{ key: "empty", data: "none", make: () => el("p", { class: "empty" }, "The app has not published its Home tab for you yet.") }];
  const home = state.home;
  const make = () => {
    const node = el("article", { class: "home", dataset: { testid: "home" } });
    node.append(...renderBlocks(home.blocks, {
      names, people: state.people,
      press: (part, value) => act("click", { view: home.id, action_id: part.action_id, value, values: valuesIn(node) }),
    }));
    return node;
  };
  return [{ key: home.id, data: [you, home.hash], make }];
}

function messageItem(message, channel) {
  const unfolded = open.has(message.ts);
  return {
    key: message.ts,
    data: [you, message, unfolded],
    news: [message.edited, message.replies.length],
    make: () => el("article", { class: message.private ? "message private" : "message", dataset: { testid: `message-${message.ts}` } },
      ...messageParts(message, channel),
      message.replies.length > 0 && thread(message, channel, unfolded)),
  };
}

function messageParts(message, channel) {
  const at = new Date(Number(message.ts) * 1000);
  const isApp = message.user === state.bot.id || message.user === "USLACKBOT";
  const name = message.user === "USLACKBOT" ? "Slackbot" : names.person(message.user) ?? "Someone";
  const body = el("div", { class: "body" });
  const host = {
    names, people: state.people,
    press: (part, value) => act("click", { channel: channel.id, ts: message.ts, action_id: part.action_id, value, values: valuesIn(body) }),
  };
  body.append(...(message.blocks.length ? renderBlocks(message.blocks, host) : [el("div", { class: "b-text" }, mrkdwn(message.text, names))]));
  body.append(...message.files.map((file) => el("img", { class: "picture", src: file.address, alt: file.alternative, title: file.title })));
  return [
    avatar(message.user),
    el("div", { class: "content" },
      message.private && el("p", { class: "only-you" }, el("span", { "aria-hidden": "true" }, "👁 "), "Only visible to you"),
      el("p", { class: "by" }, el("strong", {}, name), isApp && el("span", { class: "app-badge" }, "APP"),
        el("time", { datetime: at.toISOString(), title: at.toLocaleString("en-GB") }, at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })),
        message.edited > 0 && el("span", { class: "edited", title: `Edited ${message.edited} times` }, "(edited)")),
      body),
  ];
}

function thread(message, channel, unfolded) {
  const count = message.replies.length;
  const last = new Date(Number(message.replies.at(-1).ts) * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return el("div", { class: "thread" },
    el("button", {
      type: "button", class: "thread-toggle", id: `thread-${message.ts}`, "aria-expanded": String(unfolded), dataset: { testid: "thread-toggle" },
      onclick: () => { if (!open.delete(message.ts)) open.add(message.ts); draw(); },
    }, el("span", { class: "caret", "aria-hidden": "true" }, unfolded ? "▾" : "▸"), `${count} ${count === 1 ? "reply" : "replies"}`, el("small", {}, `last at ${last}`)),
    unfolded && el("div", { class: "replies" }, message.replies.map((reply) => (
      el("article", { class: reply.private ? "message private" : "message", dataset: { testid: `message-${reply.ts}` } }, ...messageParts(reply, channel))))));
}

// --- the modal

function drawModal() {
  const old = document.querySelector("dialog.modal");
  const view = state.view;
  const sign = view && JSON.stringify([you, view.id, view.hash, view.errors]);
  if (old?.dataset.sign === sign) return;
  const typed = old && view && old.dataset.view === view.id ? valuesIn(old) : null; // an update keeps what was typed
  old?.close();
  old?.remove();
  if (!view) return;
  const dialog = modal(view);
  dialog.dataset.sign = sign;
  if (typed) fill(dialog, typed);
  document.body.append(dialog);
  dialog.showModal();
  (dialog.querySelector("[aria-invalid=true]") ?? dialog.querySelector("[data-input]"))?.focus();
}

function modal(view) {
  const text = (part, otherwise) => part?.text ?? otherwise;
  const close = () => act("close", { view: view.id });
  const form = el("form", { method: "dialog", novalidate: true });
  const body = el("div", { class: "dialog-body" }, renderBlocks(view.blocks, {
    names, people: state.people, errors: view.errors,
    press: (part, value) => act("click", { view: view.id, action_id: part.action_id, value, values: valuesIn(form) }),
  }));
  const complaint = el("p", { class: "field-error", role: "alert", hidden: true });
  const send = el("button", { type: "submit", class: "primary", dataset: { testid: "dialog-submit" } }, text(view.submit, "Submit"));
  form.append(
    el("header", { class: "dialog-head" }, el("h2", { id: "modal-title" }, text(view.title, "")),
      el("button", { type: "button", class: "plain", "aria-label": "Close", onclick: close }, "✕")),
    body, complaint,
    el("footer", { class: "dialog-foot" },
      el("button", { type: "button", dataset: { testid: "dialog-close" }, onclick: close }, text(view.close, "Cancel")),
      view.submit && send));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    const answer = await act("submit", { view: view.id, values: valuesIn(form) });
    send.disabled = false;
    complaint.hidden = !answer.error || answer.error === "incomplete";
    complaint.textContent = answer.shown ?? "";
  });
  const dialog = el("dialog", { class: "modal", dataset: { testid: "dialog", view: view.id }, "aria-labelledby": "modal-title" }, form);
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); close(); });
  return dialog;
}

function fill(dialog, values) {
  for (const part of dialog.querySelectorAll("[data-input]")) {
    const value = values[part.dataset.input];
    if (value === undefined) continue;
    if (part.tagName === "SELECT" && ![...part.options].some((option) => option.value === value)) continue;
    if (!part.classList.contains("choices")) part.value = value;
    else for (const box of part.querySelectorAll("input")) box.checked = value.split(",").includes(box.value);
  }
}

// --- what the person does

function become(id) {
  you = id;
  sessionStorage.setItem("you", id);
  following.abort();
  if (place === HOME) openHome();
}

function go(id) {
  place = id;
  show("talk");
  draw();
  if (id === HOME) openHome();
}

async function openHome() {
  forHome = you;
  const answer = await act("home", {});
  if (answer.error && place === HOME && forHome === you) note(`⚠ The app did not take the event: ${answer.error}`, "warning");
}

byId("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = byId("text");
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  byId("log").scrollTop = byId("log").scrollHeight;
  const answer = await act("send", { channel: place, text });
  if (answer.error === "not_possible") note(`⚠ ${answer.shown}`, "warning");
});

document.addEventListener("show-message", (event) => {
  const { channel, ts } = event.detail;
  if (!state.channels.some((known) => known.id === channel)) return note("You cannot see that channel.", "warning");
  go(channel);
  const node = document.querySelector(`[data-testid="message-${CSS.escape(ts)}"]`);
  if (!node) return note("That message is gone.", "warning");
  node.scrollIntoView({ block: "center" });
  node.classList.add("found");
  setTimeout(() => node.classList.remove("found"), 2500);
  return undefined;
});

function show(pane) {
  document.body.dataset.pane = pane;
  if (pane === "world") aimFiles();
  for (const tab of document.querySelectorAll("#tabs button")) tab.setAttribute("aria-pressed", String(tab.dataset.show === pane));
}

for (const tab of document.querySelectorAll("#tabs button")) tab.addEventListener("click", () => show(tab.dataset.show));
// Who reads the newest message goes on reading it when the window changes, as when a phone's keyboard opens.
let atEnd = true;
byId("log").addEventListener("scroll", ({ target }) => {
  if (target.clientHeight === height) atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < 80;
});
let height = 0;
new ResizeObserver(([{ target }]) => {
  if (atEnd && place !== HOME) target.scrollTop = target.scrollHeight;
  height = target.clientHeight;
}).observe(byId("log"));

show("talk");
setInterval(tick, 5000);
follow();
