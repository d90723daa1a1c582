// Charts of the pages, drawn by Observable Plot as SVG: points are links, so that the keyboard reaches them too.
"use strict";

const LETTER = 6.6; // pixels a letter of 12 pixels takes on average
const STYLE = { background: "transparent", color: "inherit", fontSize: "12px", overflow: "visible" };

// Call a function whenever the width of an element changes, and once now.
function onWidth(element, draw) {
  let width = -1;
  new ResizeObserver(() => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    draw();
  }).observe(element);
}

// Put a chart in place of what was there; its links are named for who cannot see it.
function put(element, chart) {
  for (const link of chart.querySelectorAll("a")) {
    const named = link.querySelector("[aria-label]");
    link.setAttribute("href", link.getAttributeNS("http://www.w3.org/1999/xlink", "href"));
    link.setAttribute("aria-label", named?.getAttribute("aria-label") ?? "");
    named?.removeAttribute("aria-label");
  }
  // groups carry names such as "dot", which say nothing and are not allowed on groups
  for (const group of chart.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
  chart.setAttribute("role", "group");
  element.replaceChildren(chart);
}

const percentText = (one) => `${(100 * one.value).toFixed(1)} %` + (one.low < one.high ? ` (${(100 * one.low).toFixed(1)} to ${(100 * one.high).toFixed(1)})` : "");

// Privacy against utility: a point a defense that has both numbers.
function scatter(element, { rows, groups, attack, utility }) {
  const across = utility === "mc_all" ? "MC(all)" : "MC(l_t)";
  const up = attack ? `AA of ${attack}` : "Worst AA";
  const points = rows
    .map((row) => ({ row, x: row[utility], y: attack ? attackOf(row, attack) : row.worst }))
    .filter(({ x, y }) => x && y)
    .map(({ row, x, y }) => ({
      name: row.name, group: row.group, href: row.href, isRanked: row.place.length > 0,
      x: 100 * x.value, y: 100 * y.value, left: 100 * (x.low ?? x.value), right: 100 * (x.high ?? x.value),
      bottom: 100 * (y.low ?? y.value), top: 100 * (y.high ?? y.value),
      text: `${row.name}\n${up}: ${percentText(y)}\n${across}: ${percentText(x)}`,
    }));
  if (!points.length) {
    element.replaceChildren("No defense that is shown has both numbers.");
    return;
  }
  const width = Math.max(element.clientWidth, 260);
  const size = { width, height: Math.min(Math.max(0.62 * width, 300), 520), margin: { left: 44, right: 24, top: 28, bottom: 42 } };
  const domain = { x: span(points.flatMap((one) => [one.left, one.right])), y: [0, Math.min(100, 5 * Math.ceil(Math.max(...points.map((one) => one.top), 10) / 5))] };
  const labels = placed(points, size, domain);
  const dots = { x: "x", y: "y", stroke: "group", strokeWidth: 2, symbol: "group", r: 5.5, href: "href", ariaLabel: (one) => one.text.replaceAll("\n", ", ") };
  const colors = { domain: groups.map((one) => one.title), range: groups.map((one) => one.color) };
  put(element, Plot.plot({
    width, height: size.height, marginLeft: size.margin.left, marginRight: size.margin.right, marginTop: size.margin.top, marginBottom: size.margin.bottom,
    style: STYLE,
    ariaLabel: `Scatter plot of ${points.length} defenses: ${across} across, ${up} upwards. The table has the numbers.`,
    x: { domain: domain.x, label: `${across}, % →`, grid: true, ticks: Math.max(3, Math.floor(width / 110)) },
    y: { domain: domain.y, label: `↑ ${up}, %`, grid: true },
    color: colors,
    symbol: { domain: colors.domain, range: groups.map((one) => one.symbol) },
    marks: [
      Plot.link(points, { x1: "left", x2: "right", y1: "y", y2: "y", stroke: "group", strokeOpacity: 0.45 }),
      Plot.link(points, { x1: "x", x2: "x", y1: "bottom", y2: "top", stroke: "group", strokeOpacity: 0.45 }),
      Plot.dot(points.filter((one) => one.isRanked), { ...dots, fill: "group" }),
      Plot.dot(points.filter((one) => !one.isRanked), { ...dots, fill: "var(--paper)" }),
      ...labels.map(({ point, dx, dy, anchor }) => Plot.text([point], { x: "x", y: "y", text: "name", dx, dy, textAnchor: anchor, fill: "currentColor", stroke: "var(--paper)", strokeWidth: 3, pointerEvents: "none" })),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "text", pointerEvents: "none", maxRadius: 30, fill: "var(--paper)" })),
    ],
  }));
}

// A round span around values, with room on both sides.
function span(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const room = Math.max((high - low) * 0.06, 0.5);
  return [Math.max(0, low - room), Math.min(100.5, high + room)];
}

// Names beside their points, where they cover neither another name nor a point; the others have theirs on hover.
function placed(points, { width, height, margin }, domain) {
  const across = (value) => margin.left + ((value - domain.x[0]) / (domain.x[1] - domain.x[0])) * (width - margin.left - margin.right);
  const up = (value) => height - margin.bottom - ((value - domain.y[0]) / (domain.y[1] - domain.y[0])) * (height - margin.top - margin.bottom);
  const taken = points.map((one) => ({ left: across(one.x) - 6, right: across(one.x) + 6, top: up(one.y) - 6, bottom: up(one.y) + 6 }));
  const found = [];
  for (const point of points) {
    const x = across(point.x), y = up(point.y), wide = LETTER * point.name.length;
    for (const [dx, dy, anchor] of [[10, 0, "start"], [-10, 0, "end"], [0, -14, "middle"], [0, 14, "middle"], [8, -12, "start"], [-8, -12, "end"], [8, 12, "start"], [-8, 12, "end"]]) {
      const left = x + dx - (anchor === "end" ? wide : anchor === "middle" ? wide / 2 : 0);
      const box = { left, right: left + wide, top: y + dy - 7, bottom: y + dy + 7 };
      const isInside = box.left >= margin.left && box.right <= width - 4 && box.top >= 4 && box.bottom <= height - margin.bottom;
      if (!isInside || taken.some((one) => box.left < one.right && one.left < box.right && box.top < one.bottom && one.top < box.bottom)) continue;
      taken.push(box);
      found.push({ point, dx, dy, anchor });
      break;
    }
  }
  return found;
}

// What color and marker mean: where a defense acts.
function legend(element, groups) {
  const keys = groups.map((one) => {
    const key = document.createElement("span");
    key.className = "key";
    const mark = d3.create("svg").attr("width", 16).attr("height", 16).attr("viewBox", "-8 -8 16 16").attr("aria-hidden", "true");
    const symbol = d3[`symbol${one.symbol[0].toUpperCase()}${one.symbol.slice(1)}`];
    mark.append("path").attr("fill", one.color).attr("d", d3.symbol(symbol, 90)());
    key.append(mark.node(), ` ${one.title}`);
    return key;
  });
  element.replaceChildren("Acts on: ", ...keys);
}

const hours = (value) => (value >= 3600 ? [3600, "h"] : value >= 60 ? [60, "min"] : [1, "s"]);

// How a number of a defense went over the nights.
function history(element, nights, what) {
  const isShare = what === "worst" || what === "mc_all";
  const known = nights.filter((one) => (isShare ? one[what] : one[what] !== null));
  if (!known.length) {
    element.replaceChildren("No night has measured it.");
    return;
  }
  const [scale, unit] = isShare ? [0.01, "%"] : what === "wall_s" ? hours(Math.max(...known.map((one) => one[what]))) : [1, "MiB"];
  const points = known.map((one) => {
    const value = isShare ? one[what].value / scale : one[what] / scale;
    const low = isShare ? (one[what].low ?? one[what].value) / scale : value;
    const high = isShare ? (one[what].high ?? one[what].value) / scale : value;
    const label = `Night ${one.night}, ${one.day}: ${value.toFixed(1)} ${unit}`;
    const text = [label, ...(low < high ? [`95 %: ${low.toFixed(1)} to ${high.toFixed(1)}`] : []), ...one.alarms].join("\n");
    return { night: one.night, value, low, high, href: one.href, text, isAlarm: one.alarms.length > 0 };
  });
  const width = Math.max(element.clientWidth, 240);
  const first = points[0].night, last = points.at(-1).night;
  const color = "var(--link)";
  const name = (one) => one.text.replaceAll("\n", ", ");
  put(element, Plot.plot({
    width, height: Math.min(Math.max(0.5 * width, 180), 260), marginLeft: 48, marginBottom: 36,
    style: STYLE,
    ariaLabel: `Line chart over ${points.length} nights. The table of nights has the numbers.`,
    x: { domain: [first - 0.5, last + 0.5], label: "night →", ticks: d3.ticks(first, last, Math.min(8, last - first + 1)).filter(Number.isInteger), tickFormat: "d" },
    y: { domain: [0, Math.max(...points.map((one) => one.high)) * 1.08 || 1], label: `↑ ${unit}`, grid: true, ticks: 5 },
    marks: [
      Plot.areaY(points, { x: "night", y1: "low", y2: "high", fill: color, fillOpacity: 0.15 }),
      Plot.line(points, { x: "night", y: "value", stroke: color, strokeWidth: 1.75 }),
      Plot.dot(points.filter((one) => !one.isAlarm), { x: "night", y: "value", fill: color, r: 4, href: "href", ariaLabel: name }),
      Plot.dot(points.filter((one) => one.isAlarm), { x: "night", y: "value", fill: "var(--bad)", symbol: "triangle", r: 7, href: "href", ariaLabel: name }),
      Plot.tip(points, Plot.pointerX({ x: "night", y: "value", title: "text", pointerEvents: "none", fill: "var(--paper)" })),
    ],
  }));
}

for (const element of document.querySelectorAll("[data-chart]")) {
  const { nights } = JSON.parse(document.getElementById("data").textContent);
  onWidth(element, () => history(element, nights, element.dataset.chart));
}
