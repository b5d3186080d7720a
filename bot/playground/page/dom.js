// Elements without innerHTML: data always arrives as text.

/** Make an element: properties and attributes by name, children as nodes or strings. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (value === true) node.setAttribute(name, "");
    else node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/**
 * Bring a list's children up to date and leave alone what did not change, so that focus, scrolling and
 * half-typed words survive. An item is {key, data, make, news}: `data` decides whether it is drawn again, and
 * `news`, where given, whether people's eyes are drawn to it.
 */
export function refresh(parent, items) {
  const wanted = new Set(items.map((item) => item.key));
  const old = new Map();
  for (const node of [...parent.children]) {
    if (wanted.has(node.dataset.key)) old.set(node.dataset.key, node);
    else node.remove();
  }
  let place = parent.firstElementChild;
  for (const { key, data, make, news } of items) {
    const sign = JSON.stringify(data);
    let node = old.get(key);
    if (node && node.sign !== sign) {
      const fresh = drawn(make, key, sign, news);
      const focus = focusIn(node);
      if (place === node) place = fresh;
      node.replaceWith(fresh);
      if (focus) restore(fresh, focus);
      if (fresh.news !== node.news) flash(fresh);
      node = fresh;
    }
    node ??= drawn(make, key, sign, news);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
}

function drawn(make, key, sign, news) {
  const node = make();
  node.dataset.key = key;
  node.sign = sign;
  node.news = JSON.stringify(news);
  return node;
}

function flash(node) {
  node.classList.add("changed");
  node.addEventListener("animationend", () => node.classList.remove("changed"), { once: true });
}

function focusIn(node) {
  const active = document.activeElement;
  if (!active || !node.contains(active)) return null;
  return active.dataset.actionId || active.id || "self";
}

function restore(node, focus) {
  const same = [...node.querySelectorAll("[data-action-id], [id]")].find(
    (part) => part.dataset.actionId === focus || part.id === focus,
  );
  const target = same || node;
  if (target === node) node.tabIndex = -1;
  target.focus({ preventScroll: true });
}

/** Say something in the corner for a while. */
export function note(text, kind = "info") {
  const shown = el("p", { class: `note ${kind}` }, text);
  const box = document.getElementById("notes");
  box.append(shown);
  setTimeout(() => shown.remove(), kind === "warning" ? 9000 : 5000);
}
