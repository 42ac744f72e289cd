// Draws the report's charts at the width they have, again when it changes. No library: everything is in this file.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const megabytes = (bytes) => {
  const [unit, size] = bytes >= 1e9 ? ["GB", 1e9] : bytes >= 1e6 ? ["MB", 1e6] : ["kB", 1e3];
  return (bytes / size).toPrecision(3) + " " + unit;
};
const percent = (x, digits = 1) => (100 * x).toFixed(digits) + "%";
const rate = (x) => x.toFixed(x >= 99.95 ? 0 : x >= 9.995 ? 1 : 2);
const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[c]);

// --- one tooltip for all marks: on hover, on focus, on touch -----------------------------------------------------
const tip = document.body.appendChild(Object.assign(document.createElement("div"), {className: "tip"}));
tip.setAttribute("role", "status");
function showTip(html, x, y) {
  tip.innerHTML = html;
  tip.classList.add("on");
  const box = tip.getBoundingClientRect(), gap = 14;
  const left = Math.min(Math.max(8, x - box.width / 2), innerWidth - box.width - 8);
  tip.style.left = left + "px";
  tip.style.top = (y - box.height - gap > 8 ? y - box.height - gap : y + gap) + "px";
}
const hideTip = () => tip.classList.remove("on");
addEventListener("scroll", hideTip, {passive: true});

// --- SVG ---------------------------------------------------------------------------------------------------------
function element(parent, name, attributes = {}, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}
function mark(parent, name, attributes, html) {
  const node = element(parent, name, {class: "mark", tabindex: -1, ...attributes});
  const at = (event) => showTip(html, event.clientX, event.clientY);
  node.addEventListener("pointermove", at);
  node.addEventListener("pointerdown", at);
  node.addEventListener("pointerleave", hideTip);
  return node;
}
const charts = [];
function chart(id, height, draw) {
  const place = document.getElementById(id);
  if (!place) return;
  const redraw = () => {
    const width = Math.max(260, place.clientWidth), tall = typeof height === "function" ? height(width) : height;
    place.replaceChildren();
    const svg = element(place, "svg", {viewBox: `0 0 ${width} ${tall}`, height: tall, role: "img",
                                       "aria-label": place.dataset.title || ""});
    draw(svg, width, tall);
  };
  charts.push(redraw);
  redraw();
}
let pending = 0, drawnWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === drawnWidth) return;
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(() => { drawnWidth = innerWidth; charts.forEach((redraw) => redraw()); });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((redraw) => redraw()));

/// A scale from values to pixels: linear or logarithmic, with ticks that people like.
function scale(low, high, from, to, log = false) {
  const f = log ? Math.log10 : (x) => x;
  let a = f(low), b = f(high);
  if (!(b > a)) { a -= 0.5; b += 0.5; }
  const at = (x) => from + (f(x) - a) / (b - a) * (to - from);
  const ticks = (most) => {
    const list = [];
    if (log) {
      const factors = b - a < 1.2 ? [1, 1.5, 2, 3, 4, 5, 7] : b - a < 3 ? [1, 2, 5] : [1];
      for (let e = Math.floor(a); e <= b; ++e)
        for (const k of factors) { const v = k * 10 ** e; if (f(v) >= a && f(v) <= b) list.push(v); }
      return list;
    }
    const raw = (b - a) / most, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
    for (let i = Math.ceil(a / step - 1e-9); i * step <= b + 1e-9 * step; ++i) list.push(i * step);
    return list;
  };
  return {at, ticks};
}

// --- the Pareto front --------------------------------------------------------------------------------------------
function planTip(t, title) {
  const rows = [`${megabytes(t.bytes)}, ${(data.base.bytes / t.bytes).toFixed(2)}x smaller`,
                `quality ${percent(t.quality, 2)} on the search's text`,
                `KL ${t.kl.toPrecision(3)}, same next word ${percent(t.top1)}`];
  if (t.speed) rows.push(`decodes ${t.speed.toFixed(2)}x as fast (predicted)`);
  rows.push(escape(t.summary));
  return `<b>${escape(title)}</b>` + rows.join("<br>");
}
let frontBy = "quality";
const shown = data.trials.filter((t) => t.kl < 500);
function drawFront(svg, width, height) {
  const left = 52, right = width - 14, top = 12, bottom = height - 40, log = frontBy === "kl";
  const points = shown.filter((t) => !log || t.kl > 1e-7);
  // Plans far below what was asked for would press the rest into a corner.
  const value = (t) => log ? t.kl : t.quality;
  const floor = Math.max(0.2, Math.min(0.85, data.result.quality - 0.05));
  const visible = points.filter((t) => log ? t.kl < 3 : t.quality >= floor);
  if (!visible.length) return;
  const sizes = visible.map((t) => t.bytes), values = visible.map(value);
  const x = scale(Math.min(...sizes) * 0.94, Math.max(...sizes) * 1.05, left, right, true);
  const y = log ? scale(Math.min(...values) * 0.7, Math.max(...values) * 1.4, top, bottom, true)
                : scale(Math.min(...values) - 0.01, Math.max(1, ...values) + 0.01, bottom, top);
  for (const v of y.ticks(6)) {
    element(svg, "line", {class: "grid", x1: left, x2: right, y1: y.at(v), y2: y.at(v)});
    element(svg, "text", {x: left - 8, y: y.at(v) + 4, "text-anchor": "end"}, log ? +v.toPrecision(2) : percent(v, 0));
  }
  let last = -1e9;
  for (const v of x.ticks()) {
    if (x.at(v) - last < 44) continue;
    last = x.at(v);
    element(svg, "line", {class: "axis", x1: last, x2: last, y1: bottom, y2: bottom + 4});
    element(svg, "text", {x: last, y: bottom + 18, "text-anchor": "middle"}, megabytes(v).replace(/\.0+(?= )/, ""));
  }
  element(svg, "line", {class: "axis", x1: left, x2: right, y1: bottom, y2: bottom});
  element(svg, "text", {x: (left + right) / 2, y: height - 4, "text-anchor": "middle"}, "size of the file");
  if (data.budget.quality && !log) {
    element(svg, "line", {x1: left, x2: right, y1: y.at(data.budget.quality), y2: y.at(data.budget.quality),
                          stroke: css("--good"), "stroke-dasharray": "5 4"});
    element(svg, "text", {x: right, y: y.at(data.budget.quality) + 15, "text-anchor": "end"},
            `asked for: ${percent(data.budget.quality, 0)}`);
  }
  if (data.budget.bytes) {
    element(svg, "line", {x1: x.at(data.budget.bytes), x2: x.at(data.budget.bytes), y1: top, y2: bottom,
                          stroke: css("--good"), "stroke-dasharray": "5 4"});
  }
  // The line joins what no smaller plan beats in quality; speed is the third measure, so more plans than these may be
  // on the front.
  const best = [];
  for (const t of [...visible].sort((a, b) => a.bytes - b.bytes || a.kl - b.kl))
    if (!best.length || t.kl < best[best.length - 1].kl) best.push(t);
  element(svg, "polyline", {points: best.map((t) => `${x.at(t.bytes)},${y.at(value(t))}`).join(" "), fill: "none",
                            stroke: css("--rest"), "stroke-width": 1.5, "stroke-linejoin": "round"});
  const order = [...visible].sort((a, b) => a.on_front - b.on_front);
  for (const t of order) {
    mark(svg, "circle", {cx: x.at(t.bytes), cy: y.at(value(t)), r: t.on_front ? 5 : 3.5,
                         fill: css(t.drops ? "--mlp" : "--attention"), "fill-opacity": t.on_front ? 1 : 0.32},
         planTip(t, t.on_front ? "On the front" : "Tried"));
  }
  const chosen = data.trials.find((t) => t.chosen);
  if (chosen && x.at(chosen.bytes) >= left) {
    const cx = x.at(chosen.bytes), cy = y.at(Math.max(value(chosen), log ? 1e-7 : floor));
    element(svg, "circle", {cx, cy, r: 10, fill: "none", stroke: css("--good"), "stroke-width": 2.5});
    mark(svg, "circle", {cx, cy, r: 5.5, fill: css("--good")}, planTip(chosen, "The result"));
    const end = cx > (left + right) / 2;
    element(svg, "text", {x: cx + (end ? -15 : 15), y: cy + (log ? -10 : 20), class: "strong",
                          "text-anchor": end ? "end" : "start"}, "the result");
  }
}
chart("front", (width) => Math.min(420, Math.max(280, width * 0.5)), drawFront);
for (const button of document.querySelectorAll("[data-front]")) {
  button.addEventListener("click", () => {
    frontBy = button.dataset.front;
    document.querySelectorAll("[data-front]").forEach((b) => b.setAttribute("aria-pressed", b === button));
    charts[0]();
  });
}

// --- the plan, layer by layer ------------------------------------------------------------------------------------
const typeColour = (type) => css("--t" + Math.min(4, data.types.indexOf(type) + 1));  // float types are not listed
chart("grid", (width) => 24 * data.grid.length + 34, (svg, width, height) => {
  const left = width < 560 ? 74 : 118, layers = data.layers.length, cell = (width - left) / layers, tall = 24;
  data.grid.forEach((row, r) => {
    const y = r * tall + 1;
    element(svg, "text", {x: left - 10, y: y + 16, "text-anchor": "end", class: "strong"}, row.tensor);
    const cells = row.cells, wide = cells.length === 1 ? width - left : cell;
    cells.forEach((c, i) => {
      const x = left + i * wide, gap = cell > 7 ? 1.5 : 0.5, layer = cells.length === 1 ? "" : `layer ${i}, `;
      if (c.type === null) {
        mark(svg, "rect", {x: x + gap / 2, y, width: Math.max(1, wide - gap), height: tall - 3, rx: 2, fill: css("--soft"),
                           stroke: css("--drop"), "stroke-dasharray": "2 2", "stroke-width": 1},
             `<b>${layer}${escape(row.tensor)}</b>dropped`);
      } else {
        mark(svg, "rect", {x: x + gap / 2, y, width: Math.max(1, wide - gap), height: tall - 3, rx: 2,
                           fill: typeColour(c.type)},
             `<b>${layer}${escape(row.tensor)}</b>${escape(c.type)}, ${megabytes(c.bytes)}, before ${megabytes(c.before)}`);
      }
    });
  });
  const every = Math.ceil(28 / cell), y = data.grid.length * tall + 14;
  for (let i = 0; i < layers; i += every)
    element(svg, "text", {x: left + (i + 0.5) * cell, y, "text-anchor": "middle"}, i);
  element(svg, "text", {x: left + (width - left) / 2, y: y + 16, "text-anchor": "middle"}, "layer");
});

// --- importance by depth -----------------------------------------------------------------------------------------
chart("importance", (width) => Math.min(330, Math.max(230, width * 0.4)), (svg, width, height) => {
  const left = 52, right = width - 6, top = 10, bottom = height - 38, n = data.layers.length;
  const values = data.layers.flatMap((l) => [l.attention, l.mlp]).filter((v) => v > 0);
  if (!values.length) return;
  const y = scale(Math.min(...values) * 0.7, Math.max(...values) * 1.2, bottom, top, true);
  for (const v of y.ticks(5)) {
    element(svg, "line", {class: "grid", x1: left, x2: right, y1: y.at(v), y2: y.at(v)});
    element(svg, "text", {x: left - 8, y: y.at(v) + 4, "text-anchor": "end"}, +v.toPrecision(2));
  }
  const slot = (right - left) / n, bar = Math.min(16, slot * 0.4);
  data.layers.forEach((layer, i) => {
    [["attention", "--attention", -1], ["mlp", "--mlp", 0]].forEach(([kind, colour, side]) => {
      const v = layer[kind];
      if (!(v > 0)) return;
      const x = left + (i + 0.5) * slot + side * bar, gone = layer[kind + "_dropped"], alone = layer[kind + "_kl"];
      const name = kind === "mlp" ? "MLP" : kind;
      const html = `<b>${name} of layer ${i}</b>importance ${v.toPrecision(3)}` +
                   (alone ? `<br>dropped alone: KL ${alone.toPrecision(3)}` : "") + (gone ? "<br>dropped" : "");
      const paint = gone ? {fill: css("--soft"), stroke: css("--drop"), "stroke-dasharray": "3 2"} : {fill: css(colour)};
      mark(svg, "rect", {x: x + 0.5, y: y.at(v), width: Math.max(1, bar - 1), height: bottom - y.at(v), rx: 1.5, ...paint},
           html);
    });
  });
  const every = Math.ceil(26 / slot);
  for (let i = 0; i < n; i += every)
    element(svg, "text", {x: left + (i + 0.5) * slot, y: bottom + 16, "text-anchor": "middle"}, i);
  element(svg, "line", {class: "axis", x1: left, x2: right, y1: bottom, y2: bottom});
  element(svg, "text", {x: (left + right) / 2, y: height - 4, "text-anchor": "middle"}, "layer");
});

// --- where the bytes are -----------------------------------------------------------------------------------------
chart("sizes", 132, (svg, width, height) => {
  const rows = [["before", data.sizes.base], ["after", data.sizes.result]], left = 52;
  const total = Math.max(...rows.map(([, r]) => r.reduce((sum, e) => sum + e.bytes, 0)));
  rows.forEach(([name, entries], r) => {
    const y = 8 + r * 62;
    let x = left;
    element(svg, "text", {x: left - 8, y: y + 27, "text-anchor": "end", class: "strong"}, name);
    for (const e of entries) {
      const wide = e.bytes / total * (width - left);
      mark(svg, "rect", {x, y, width: Math.max(0.5, wide - 1), height: 42, rx: 2, fill: typeColour(e.type)},
           `<b>${escape(e.tensor)}</b>${escape(e.type)}: ${megabytes(e.bytes)}, ${(8 * e.bytes / e.values).toFixed(2)} bits a weight`);
      if (wide > 8.2 * e.tensor.length)
        element(svg, "text", {x: x + wide / 2, y: y + 26, "text-anchor": "middle", "pointer-events": "none",
                              style: `fill:${css("--ink")}`}, e.tensor);
      x += wide;
    }
  });
});

// --- decode speed ------------------------------------------------------------------------------------------------
const speeds = data.speeds.filter((s) => s.decode_tokens_per_second);
chart("speed", () => 30 * speeds.length + 8, (svg, width) => {
  const left = Math.min(190, width * 0.42), most = Math.max(...speeds.map((s) => s.decode_tokens_per_second));
  speeds.forEach((s, i) => {
    const y = i * 30 + 2, wide = s.decode_tokens_per_second / most * (width - left - 92);
    element(svg, "text", {x: left - 10, y: y + 16, "text-anchor": "end", class: "strong"}, s.name);
    mark(svg, "rect", {x: left, y, width: Math.max(1, wide), height: 22, rx: 3,
                       fill: css(s.name === "the result" ? "--good" : s.name === "as it is" ? "--rest" : "--attention")},
         `<b>${escape(s.name)}</b>${rate(s.decode_tokens_per_second)} tokens a second<br>` +
         `${s.decode_speed.toFixed(2)}x the original's, ${megabytes(s.bytes)}`);
    element(svg, "text", {x: left + wide + 8, y: y + 16},
            `${rate(s.decode_tokens_per_second)} tok/s  ${s.decode_speed.toFixed(2)}x`);
  });
});
