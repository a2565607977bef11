// No innerHTML and no style attribute anywhere: both would break under a strict Content-Security-Policy.
const SVG = "http://www.w3.org/2000/svg";

/** Make an element; `on` has its listeners, `text` its text, null and false leave a property out. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, { on = {}, text, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  if (text !== undefined) element.textContent = text;
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// These compare first: a write that changes nothing still costs style and layout.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value === true ? "" : value);
  }
}

export function setStyle(element, name, value) {
  if (element.style.getPropertyValue(name) !== value) element.style.setProperty(name, value);
}

export function icon(path, { size = 16 } = {}) {
  const attributes = { viewBox: "0 0 16 16", width: size, height: size, "aria-hidden": "true", class: "icon" };
  return svg("svg", attributes, svg("path", { d: path }));
}

export const ICONS = {
  pause: "M5.5 3.5v9M10.5 3.5v9",
  resume: "M5.5 3.5v9l7-4.5z",
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M6 5.5h7.5v8H6zM3 10.5h-.5v-8H10V3",
  copied: "M3 8.5l3.3 3.2L13 4.8",
  open: "M6 4l4 4-4 4",
  back: "M10 4L6 8l4 4",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9M10.4 10.4L14 14",
};

/** Copy a text; without a secure context, which the clipboard wants, in the old way. */
export async function copyText(text, near) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = h("textarea", { class: "offscreen", "aria-hidden": "true" });
  field.value = text;
  near.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** A button that copies; it says so for a moment. */
export function copyButton(text, what) {
  const mark = h("span", { class: "mark" }, icon(ICONS.copy, { size: 13 }));
  const button = h("button", { class: "copy", type: "button", "aria-label": `Copy ${what}`, title: `Copy ${what}` }, mark);
  button.addEventListener("click", async (event) => {
    event.stopPropagation();
    await copyText(text, button);
    mark.replaceChildren(icon(ICONS.copied, { size: 13 }));
    button.setAttribute("aria-label", "Copied");
    setTimeout(() => {
      mark.replaceChildren(icon(ICONS.copy, { size: 13 }));
      button.setAttribute("aria-label", `Copy ${what}`);
    }, 1500);
  });
  return button;
}
