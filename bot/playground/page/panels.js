// The world beside the workspace: applications, switches, values files and the git log.

import { el, note, refresh } from "./dom.js";
import { ago } from "./mrkdwn.js";

const TAG_LINE = /^\s*(tag|version|newTag)\s*:\s*([^#]*)/;
const unfolded = new Map();
const GOOD = new Set(["Healthy", "Synced", "Running", "Ready"]);
const BUSY = new Set(["Progressing", "OutOfSync", "ContainerCreating", "Pending", "Terminating", "Suspended"]);

/** Draw every panel from a snapshot; `act` sends what the person does. */
export function drawWorld(world, act) {
  const trouble = document.getElementById("trouble");
  const words = world.trouble ?? (world.bot && !world.bot.running ? "The bot is not running. Commands and clicks will fail until it is back." : "");
  trouble.hidden = !words;
  if (trouble.textContent !== words) trouble.textContent = words;
  refresh(document.getElementById("applications"), (world.applications ?? []).map((application) => (
    { key: application.name, data: application, news: application, make: () => applicationCard(application) })));
  drawSwitches(world, act);
  refresh(document.getElementById("files"), (world.files ?? []).map((file, index) => (
    { key: file.name, data: file, news: file, make: () => fileCard(file, unfolded.get(file.name) ?? index === 0) })));
  refresh(document.getElementById("git"), (world.log ?? []).map((commit) => ({ key: commit.revision, data: commit, make: () => commitRow(commit) })));
}

function mood(word) {
  if (GOOD.has(word)) return "good";
  return BUSY.has(word) ? "busy" : word === "Unknown" ? "unknown" : "bad";
}

const state = (word, title) => el("span", { class: `state ${mood(word)}`, title }, el("span", { class: "dot", "aria-hidden": "true" }), word);

function applicationCard(application) {
  return el("article", { class: "application", dataset: { testid: `application-${application.name}` }, "aria-label": application.name },
    el("div", { class: "row" },
      el("h3", {}, application.name),
      el("code", { class: "revision", title: "Revision in the cluster" }, String(application.revision ?? "").slice(0, 7)),
      el("span", { class: "version", title: "Version that runs" }, String(application.version ?? "–"))),
    el("div", { class: "row states" },
      state(application.health ?? "Unknown", "Health"),
      state(application.sync ?? "Unknown", "Sync"),
      typeof application.pods === "string" && el("span", { class: "pods-line" }, `${application.pods} pods updated`)),
    pods(application.pods),
    application.message && el("p", { class: "message" }, application.message));
}

function pods(list) {
  if (!Array.isArray(list) || !list.length) return null;
  return el("ul", { class: "pods", "aria-label": "Pods" }, list.map((pod) => {
    const one = typeof pod === "object" ? pod : { name: "", status: String(pod) };
    return el("li", { class: mood(one.status), title: one.name }, el("span", { class: "dot", "aria-hidden": "true" }),
      one.version !== undefined && el("strong", {}, String(one.version)), ` ${one.status}`);
  }));
}

let counted = 0;

function drawSwitches(world, act) {
  const on = world.switches ?? {};
  const box = document.getElementById("switches");
  const newest = Math.max(0, ...(world.applications ?? []).map((application) => Number(application.version) || 0));
  if (!box.children.length) {
    const number = el("input", { id: "ci-version", type: "number", min: 1, max: 99999, dataset: { testid: "ci-version" }, "aria-label": "Version that CI built" });
    const apps = world.apps ?? [];
    const app = apps.length > 1 && el("select", { dataset: { testid: "ci-app" }, "aria-label": "App that CI built" }, apps.map((name) => el("option", {}, name)));
    const turn = async (button, name, value) => {
      button.disabled = true;
      const answer = await act("switch", { name, value });
      button.disabled = false;
      return answer;
    };
    const ci = el("button", { type: "button", dataset: { testid: "switch-ci" }, onclick: () => built() }, "CI built version");
    const built = async () => {
      const version = number.value.trim();
      if (!version || ci.disabled) return;
      if (!(await turn(ci, "ci", app ? `${app.value} ${version}` : version)).error) number.value = String(Number(version) + 1);
    };
    number.addEventListener("keydown", (event) => event.key === "Enter" && built());
    box.append(
      el("div", { class: "ci" }, ci, app, number),
      toggle("degrade_next", "Next rollout degrades", turn),
      toggle("argocd_down", "Argo CD's API is down", turn),
      toggle("slack_limited", "Slack answers 429", turn),
      el("button", { type: "button", class: "danger", dataset: { testid: "switch-kill_bot" }, onclick: (event) => turn(event.currentTarget, "kill_bot", true) }, "Kill the bot (SIGKILL) and start again"),
      el("p", { id: "bot-state", class: "hint" }));
  }
  const number = document.getElementById("ci-version");
  if (newest > counted && document.activeElement !== number) {
    counted = newest;
    number.value = String(Math.max(newest + 1, Number(number.value) || 0));
  }
  for (const button of box.querySelectorAll("[role=switch]")) button.setAttribute("aria-checked", String(Boolean(on[button.dataset.name])));
  const bot = world.bot;
  const words = bot ? `The bot is ${bot.running ? "running" : "not running"}, started ${bot.starts === 1 ? "once" : `${bot.starts} times`}.` : "";
  const shown = document.getElementById("bot-state");
  if (shown.textContent !== words) shown.textContent = words;
}

function toggle(name, label, turn) {
  return el("button", {
    type: "button", role: "switch", "aria-checked": "false", dataset: { testid: `switch-${name}`, name },
    onclick: (event) => turn(event.currentTarget, name, event.currentTarget.getAttribute("aria-checked") !== "true"),
  }, el("span", { class: "knob", "aria-hidden": "true" }), label);
}

function fileCard(file, open) {
  const rows = file.text.replace(/\n$/, "").split("\n");
  const at = rows.findIndex((row) => TAG_LINE.test(row));
  const body = el("pre", { tabindex: 0, "aria-label": file.name }, rows.map((row, index) => (
    el("span", { class: index === at ? "tag-line" : null }, row || " ", "\n"))));
  const node = el("details", { open, dataset: { testid: `file-${file.name}` } },
    el("summary", {}, el("code", {}, file.name), at >= 0 && el("span", { class: "version" }, rows[at].match(TAG_LINE)[2].trim())), body);
  requestAnimationFrame(() => aim(body));
  node.addEventListener("toggle", () => {
    unfolded.set(file.name, node.open);
    aim(body);
  });
  return node;
}

function aim(body) {
  const line = body.querySelector(".tag-line");
  if (line) body.scrollTop = Math.max(0, line.offsetTop - body.offsetTop - 40);
}

/** Bring every file's tag into sight; a panel that was hidden could not be scrolled. */
export const aimFiles = () => document.querySelectorAll("#files pre").forEach(aim);

function commitRow(commit) {
  const at = new Date(commit.at);
  const trailers = commit.trailers ?? [];
  const line = [
    el("span", { class: "subject" }, commit.subject),
    el("span", { class: "meta" }, el("code", {}, commit.revision.slice(0, 7)),
      el("span", { title: commit.author }, ` ${commit.author.replace(/ <.*>$/, "")} · `),
      el("time", { datetime: commit.at, title: at.toLocaleString("en-GB") }, Number.isNaN(at.getTime()) ? "" : ago(at)),
      trailers.length > 0 && el("span", { class: "more" }, `${trailers.length} trailers`))];
  if (!trailers.length) return el("li", {}, el("div", { class: "commit" }, line));
  return el("li", {}, el("details", {}, el("summary", { class: "commit" }, line),
    el("dl", {}, trailers.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))));
}

/** Keep "2 minutes ago" true without asking anybody. */
export function tick() {
  for (const time of document.querySelectorAll("#git time")) {
    const words = ago(new Date(time.dateTime));
    if (time.textContent !== words) time.textContent = words;
  }
}

/** Tell what a switch did. */
export const told = (answer) => answer.shown && note(answer.shown, answer.error ? "warning" : "info");
