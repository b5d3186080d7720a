// Slack's mrkdwn as nodes. Text arrives escaped (&amp; &lt; &gt;) and is turned back only where it becomes a text node.

import { el, note } from "./dom.js";

const EMOJI = {
  "+1": "👍", "-1": "👎", alarm_clock: "⏰", arrow_down: "⬇️", arrow_right: "➡️", arrow_up: "⬆️", arrows_counterclockwise: "🔄",
  bar_chart: "📊", bell: "🔔", bookmark_tabs: "📑", boom: "💥", bug: "🐛", bulb: "💡", calendar: "📆", clipboard: "📋", clock1: "🕐", closed_lock_with_key: "🔐",
  construction: "🚧", crossed_fingers: "🤞", eyes: "👀", fast_forward: "⏩", fire: "🔥", gear: "⚙️", grey_question: "❔", hammer_and_wrench: "🛠️",
  hand: "✋", heavy_check_mark: "✔️", hourglass: "⌛", hourglass_flowing_sand: "⏳", information_source: "ℹ️", key: "🔑",
  large_blue_circle: "🔵", large_green_circle: "🟢", large_orange_circle: "🟠", large_red_circle: "🔴", large_yellow_circle: "🟡",
  leftwards_arrow_with_hook: "↩️", link: "🔗", lock: "🔒", mag: "🔍", memo: "📝", mega: "📣", no_bell: "🔕", no_entry: "⛔",
  no_entry_sign: "🚫", octagonal_sign: "🛑", ok_hand: "👌", package: "📦", page_facing_up: "📄", pencil: "📝", pencil2: "✏️",
  pray: "🙏", pushpin: "📌", question: "❓", raised_hand: "✋", red_circle: "🔴", repeat: "🔁", rewind: "⏪", robot_face: "🤖",
  rocket: "🚀", rotating_light: "🚨", shield: "🛡️", ship: "🚢", small_blue_diamond: "🔹", snowflake: "❄️", sos: "🆘", sparkles: "✨",
  speech_balloon: "💬", star: "⭐", stopwatch: "⏱️", tada: "🎉", thumbsdown: "👎", thumbsup: "👍", timer_clock: "⏲️",
  twisted_rightwards_arrows: "🔀", unlock: "🔓", vertical_traffic_light: "🚦", warning: "⚠️", wastebasket: "🗑️", wave: "👋",
  white_check_mark: "✅", white_circle: "⚪", writing_hand: "✍️", x: "❌", zap: "⚡", zzz: "💤", black_circle: "⚫", back: "🔙", ballot_box_with_check: "☑️",
  heavy_minus_sign: "➖", electric_plug: "🔌",
};

const unescaped = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

/** Text of a block: mrkdwn or plain. `names` tells people, channels and groups by id. */
export function textObject(text, names) {
  if (!text) return [];
  return text.type === "mrkdwn" ? mrkdwn(text.text, names) : plain(text.text, text.emoji !== false);
}

/** Plain text keeps its stars and brackets; only emoji are drawn. */
export function plain(text, emoji = true) {
  return [lines(emoji ? withEmoji(unescaped(text)) : unescaped(text))].flat();
}

/** Text with marks, as nodes. */
export function mrkdwn(text, names) {
  const parts = text.split(/```\n?([\s\S]*?)```\n?/);
  return parts.flatMap((part, index) => (index % 2 ? [preformatted(part, names)] : paragraphs(part, names)));
}

function preformatted(text, names) {
  const rows = text.replace(/\n$/, "").split("\n");
  const isDiff = rows.some((row) => row.startsWith("+")) || rows.some((row) => row.startsWith("-"));
  const kind = (row) => {
    if (!isDiff) return null;
    if (row.startsWith("+")) return "added";
    if (row.startsWith("-")) return "removed";
    return row.startsWith("@@") ? "hunk" : null;
  };
  const inner = (row) => row.split(/(<[^<>\n]+>)/).map((part, index) => (index % 2 ? reference(part.slice(1, -1), names) : unescaped(part)));
  return el("pre", { tabindex: 0 }, rows.map((row) => el("span", { class: kind(row) }, ...inner(row), "\n")));
}

function paragraphs(text, names) {
  const out = [];
  let quote = null;
  const rows = text.split("\n");
  rows.forEach((row, index) => {
    const quoted = row.match(/^(?:&gt;|>)\s?(.*)$/);
    if (quoted) {
      if (quote) quote.append(el("br"));
      else out.push((quote = el("blockquote")));
      quote.append(...inline(quoted[1], names));
      return;
    }
    if (!quote && index > 0 && out.length) out.push(el("br"));
    quote = null;
    out.push(...inline(row, names));
  });
  if (out.length && out.at(-1).tagName === "BR" && text.endsWith("\n")) out.pop();
  return out;
}

const MARKS = [
  [/`([^`\n]+)`/, (match) => el("code", {}, unescaped(match[1]))],
  [/<([^<>\n]+)>/, (match, names) => reference(match[1], names)],
  [/(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])/, (match, names) => el("strong", {}, inline(match[1], names))],
  [/(?<![\w_])_(?=\S)([^_\n]+?)(?<=\S)_(?![\w_])/, (match, names) => el("em", {}, inline(match[1], names))],
  [/(?<![\w~])~(?=\S)([^~\n]+?)(?<=\S)~(?![\w~])/, (match, names) => el("s", {}, inline(match[1], names))],
];

function inline(text, names) {
  let first = null;
  for (const [pattern, make] of MARKS) {
    const match = pattern.exec(text);
    if (match && (!first || match.index < first.match.index)) first = { match, make };
  }
  if (!first) return text ? [withEmoji(unescaped(text))] : [];
  const { match, make } = first;
  return [
    ...inline(text.slice(0, match.index), names),
    make(match, names),
    ...inline(text.slice(match.index + match[0].length), names),
  ];
}

function withEmoji(text) {
  return text.replace(/:([a-z0-9_+-]+):/g, (whole, name) => (EMOJI[name] ? picture(EMOJI[name]) : whole));
}

// The selector asks for the coloured picture where a text font has the sign too.
const picture = (sign) => (sign.length === 1 ? `${sign}\uFE0F` : sign);

function lines(text) {
  return text.split("\n").flatMap((row, index) => (index ? [el("br"), row] : [row]));
}

function reference(inner, names) {
  const [target, ...rest] = inner.split("|");
  const label = rest.join("|");
  if (target.startsWith("@")) return el("span", { class: "mention" }, `@${names.person(target.slice(1)) ?? (unescaped(label) || target.slice(1))}`);
  if (target.startsWith("#")) return el("span", { class: "mention" }, `#${names.channel(target.slice(1)) ?? unescaped(label)}`);
  if (target.startsWith("!subteam^")) return el("span", { class: "mention" }, `@${names.group(target.slice(9)) ?? (unescaped(label) || "group")}`);
  if (target.startsWith("!date^")) return date(target, unescaped(label));
  if (target.startsWith("!")) return el("span", { class: "mention loud" }, `@${target.slice(1)}`);
  return link(unescaped(target), withEmoji(unescaped(label || target)));
}

/** A link: to a message it scrolls there, to this machine it opens, elsewhere it only says where it would lead. */
export function link(address, label) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return label;
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return label;
  const attributes = { href: address, rel: "noopener noreferrer", target: "_blank", title: address };
  return el("a", { ...attributes, onclick: (event) => follow(event, url) }, label);
}

/** Go where a link leads, but never off this machine. */
export function follow(event, url) {
  const message = url.pathname.match(/^\/archives\/(\w+)\/p(\d+)(\d{6})$/);
  if (message && url.hostname.endsWith(".slack.com")) {
    event?.preventDefault();
    document.dispatchEvent(new CustomEvent("show-message", { detail: { channel: message[1], ts: `${message[2]}.${message[3]}` } }));
  } else if (!["127.0.0.1", "localhost"].includes(url.hostname)) {
    event?.preventDefault();
    note(`In Slack this opens ${url.href}`);
  } else if (!event) {
    window.open(url.href, "_blank", "noopener,noreferrer");
  }
}

function date(target, fallback) {
  const [, seconds, format] = target.split("^");
  const at = new Date(Number(seconds) * 1000);
  if (!format || Number.isNaN(at.getTime())) return fallback;
  const show = (options) => new Intl.DateTimeFormat("en-GB", options).format(at);
  const short = show({ day: "numeric", month: "short", year: "numeric" });
  const full = show({ day: "numeric", month: "long", year: "numeric" });
  const long = show({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
  const days = Math.round((new Date(at).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 86_400_000);
  const near = { "-1": "yesterday", 0: "today", 1: "tomorrow" }[days];
  const words = {
    "{date_num}": at.toISOString().slice(0, 10), "{date}": full, "{date_short}": short, "{date_long}": long,
    "{date_pretty}": near ?? full, "{date_short_pretty}": near ?? short, "{date_long_pretty}": near ?? long,
    "{time}": show({ hour: "2-digit", minute: "2-digit" }),
    "{time_secs}": show({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
    "{ago}": ago(at),
  };
  return el("time", { datetime: at.toISOString(), title: fallback }, format.replace(/\{\w+\}/g, (word) => words[word] ?? word));
}

/** How long ago, in words. */
export function ago(at) {
  const seconds = Math.round((at - Date.now()) / 1000);
  const units = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? units[3];
  return new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(Math.round(seconds / size), unit);
}
