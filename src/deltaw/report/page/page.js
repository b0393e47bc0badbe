"use strict";
// Names reach the page through textContent, and the texts of Plotly, which knows a few tags, through plain().
const data = JSON.parse(document.getElementById("data").textContent);
const DARK = matchMedia("(prefers-color-scheme: dark)");
const OKABE_ITO = { light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7"], dark: ["#56b4e9", "#e69f00", "#009e73", "#cc79a7"] };
const FRAME = "#56b4e9";
const DASHES = ["solid", "8px,4px", "2px,3px", "8px,3px,2px,3px"]; // as Plotly and SVG know them
const MARKS = ["circle", "square", "diamond", "triangle-up", "x", "cross"];
const NAN = 65535;

const element = (id) => document.getElementById(id);
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
const labelOf = (id) => element(id).closest("label");
const unique = (values) => [...new Set(values)];
const known = (value) => value !== null && value !== undefined;
const short = (value, digits = 3) => (known(value) ? value.toFixed(digits) : "not defined");
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const scaleOf = (colors) => colors.map((each, n) => [n / (colors.length - 1), each]);
const lines = () => OKABE_ITO[DARK.matches ? "dark" : "light"];
const style = (n) => ({ color: lines()[n % lines().length], dash: DASHES[Math.floor(n / lines().length) % DASHES.length] });

function words16(text) {
  const bytes = atob(text), words = new Uint16Array(bytes.length / 2);
  for (let n = 0; n < words.length; n += 1) words[n] = bytes.charCodeAt(2 * n) | (bytes.charCodeAt(2 * n + 1) << 8);
  return words;
}

function fill(id, choices) {
  const select = element(id), before = select.value;
  select.replaceChildren(...choices.map(([value, label]) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = label;
    return option;
  }));
  if (choices.some(([value]) => String(value) === before)) select.value = before;
}

function draw(id, traces, layout) {
  const line = { gridcolor: color("line"), linecolor: color("line"), zeroline: false, automargin: true };
  const axes = Object.fromEntries(["xaxis", "yaxis"].map((axis) => [axis, { ...line, ...layout[axis] }]));
  return Plotly.react(id, traces, {
    margin: { l: 48, r: 8, t: 36, b: 44 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: color("ink"), family: "system-ui, sans-serif", size: 13 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: color("paper"), bordercolor: color("faint"), font: { color: color("ink") }, align: "left" },
    dragmode: false, ...layout, ...axes,
  }, { responsive: true, displayModeBar: false, scrollZoom: false });
}

// On opening, the first chart and the map come at once, and each other chart after the next frame: controls answer in between

const later = [];
let opening = true;
const soon = (task) => (opening ? later.push(task) : task());

function goOn() {
  requestAnimationFrame(() => setTimeout(() => {
    later.shift()();
    if (later.length) goOn();
  }));
}

// Charts of cells: the arrow keys move a frame, and a line of text says what its cell holds

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const cursors = { map: { x: 0, y: 0, first: 0 }, grid: { x: 0, y: 0, first: 1 }, "evolution-map": { x: 0, y: 0, first: 0 } };

function frame(id) {
  const { first, text } = cursors[id], x = cursors[id].x + first, y = cursors[id].y + first;
  element(`${id}-cursor`).textContent = text(cursors[id].x, cursors[id].y);
  return { shapes: [{ type: "rect", x0: x - 0.5, x1: x + 0.5, y0: y - 0.5, y1: y + 0.5, line: { color: FRAME, width: 3 } }] };
}

function framed(id, columns, rows, text) { // x and y count from 0
  const { x, y } = cursors[id];
  Object.assign(cursors[id], { columns, rows, text, x: Math.min(x, columns - 1), y: Math.min(y, rows - 1) });
  return frame(id);
}

function moveFrame(event) {
  const { id } = event.currentTarget, { x, y, columns, rows } = cursors[id];
  if (!MOVES[event.key] || !columns) return; // before its chart is drawn
  event.preventDefault();
  const [right, down] = MOVES[event.key];
  Object.assign(cursors[id], { x: Math.min(Math.max(x + right, 0), columns - 1), y: Math.min(Math.max(y + down, 0), rows - 1) });
  Plotly.relayout(id, frame(id));
}

// Losses against rank

const NEAR = 0.1; // of the way from the lowest loss to the highest
const FIVE = ".5~r"; // digits, as the data have them

function drawLosses() {
  const losses = data.losses;
  element("losses").hidden = element("near").hidden = !losses;
  if (!losses) return;
  element("losses-caption").textContent = losses.caption;
  const points = losses.series.flatMap((series) => series.points);
  const ranks = unique(points.map((point) => point.rank)).sort((a, b) => a - b);
  const traces = losses.series.map((series, n) => ({
    name: plain(series.name), x: series.points.map((p) => p.rank), y: series.points.map((p) => p.loss),
    error_y: { type: "data", symmetric: false, array: series.points.map((p) => p.high - p.loss), arrayminus: series.points.map((p) => p.loss - p.low) },
    mode: "lines+markers", line: style(n), marker: { size: series.trained ? 10 : 7, symbol: MARKS[n % MARKS.length] },
    hovertemplate: `rank %{x}: %{y:${FIVE}}<extra>%{fullData.name}</extra>`,
  }));
  const lowest = Math.min(...points.map((p) => p.loss), ...losses.lines.map((l) => l.loss));
  const highest = Math.max(...points.map((p) => p.loss), ...losses.lines.map((l) => l.loss));
  const near = element("near").getAttribute("aria-pressed") === "true" ? { range: [lowest - NEAR * (highest - lowest) / 10, lowest + NEAR * (highest - lowest)] } : {};
  const ends = ranks.length > 1 ? [ranks[0] / 1.2, ranks.at(-1) * 1.2] : [(ranks[0] ?? 1) / 2, (ranks[0] ?? 1) * 2];
  losses.lines.forEach((line, n) => traces.push({
    name: plain(line.name), x: ends, y: [line.loss, line.loss], mode: "lines",
    line: { ...(n ? style(traces.length) : { color: color("faint") }), width: 1.5, dash: DASHES[n % DASHES.length] },
    hovertemplate: `%{y:${FIVE}}<extra>%{fullData.name}</extra>`,
  }));
  draw("losses", traces, {
    xaxis: { title: { text: "rank" }, type: "log", tickvals: ranks, ticktext: ranks.map(String) },
    yaxis: { title: { text: plain(losses.axis) }, ...near }, showlegend: true,
  });
}

// Sites

const { pairs, sites, spectra } = data.grids;
const phiWords = words16(data.grids.phi), pWords = words16(data.grids.p);
const key = (pair, basis, layer, projection) => JSON.stringify([pair, basis, layer, projection]);
const byKey = new Map(sites.map((site) => [key(site.pair, site.basis, site.layer, site.projection), site]));
const MEASURES = {
  corner: "φ of the whole spans", first: "φ(1, 1)", k_star: "k_star, directions beyond chance", k_star_cos2: "mean cos² of those",
};
const SCALES = { phi: "φ", control: "φ − control", chance: "φ / chance" };
const nameOf = (pair) => `${pair.left} – ${pair.right}`;
const stepOf = ([one, other]) => (one === other ? `${one ?? "not known"}` : `${one ?? "–"} and ${other ?? "–"}`);

const chosenPair = () => Number(element("step").value);
const siteAt = (layer, projection) => byKey.get(key(chosenPair(), element("basis").value, layer, projection));
const current = () => siteAt(Number(element("layer").value), element("projection").value);
const shownSites = () => sites.filter((site) => site.pair === chosenPair() && site.basis === element("basis").value);

function cell(words, site, i, j) { // i and j count from 1
  const word = words[site.at + (i - 1) * site.columns + j - 1];
  return word === NAN ? null : word / (NAN - 1);
}

function controlAt(site, i, j) {
  const values = pairs[site.pair].controls
    .map((pair) => byKey.get(key(pair, site.basis, site.layer, site.projection)))
    .filter((one) => one && known(one.at) && i <= one.rows && j <= one.columns)
    .map((one) => cell(phiWords, one, i, j)).filter(known);
  return values.length ? values.reduce((a, b) => a + b) / values.length : null;
}

function cellsOf(site) {
  return Array.from({ length: site.rows }, (_, a) => Array.from({ length: site.columns }, (_, b) => {
    const [i, j] = [a + 1, b + 1], p = cell(pWords, site, i, j);
    return {
      i, j, phi: cell(phiWords, site, i, j), control: controlAt(site, i, j),
      chance: Math.max(i, j) <= site.width ? Math.max(i, j) / site.width : null,
      p: known(p) ? 10 ** (-p * data.grids.smallest_p) : null,
    };
  }));
}

function pText(p) {
  if (!known(p)) return "not defined";
  return p <= 1.0001 * 10 ** -data.grids.smallest_p ? `below 1e-${data.grids.smallest_p}` : p.toPrecision(2);
}

const SCALED = {
  phi: (one) => one.phi,
  control: (one) => (known(one.phi) && known(one.control) ? one.phi - one.control : null),
  chance: (one) => (known(one.phi) && known(one.chance) ? one.phi / one.chance : null),
};

function bar(scale, values) {
  const most = Math.max(0.1, ...values.filter(known).map(Math.abs));
  if (scale === "phi") return { zmin: 0, zmax: 1, colorscale: scaleOf(data.colors.phi), colorbar: { title: { text: "φ" } } };
  if (scale === "control") return { zmin: -most, zmax: most, colorscale: scaleOf(data.colors.excess), colorbar: { title: { text: "φ − control" } } };
  const ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].filter((tick) => tick <= Math.max(2, most));
  return {
    zmin: 0, zmax: Math.log10(Math.max(2, most)), colorscale: scaleOf(data.colors.phi),
    colorbar: { title: { text: "φ / chance" }, tickvals: ticks.map(Math.log10), ticktext: ticks.map(String) },
  };
}

function sizesUpTo(most) {
  const step = Math.ceil(most / 8);
  return unique([1, ...Array.from({ length: Math.floor(most / step) }, (_, n) => (n + 1) * step)]);
}

function drawGrid(site) {
  const scale = element("scale").value, none = !site || !known(site.at);
  for (const one of [element("grid"), element("grid-help"), element("grid-cursor"), labelOf("scale")]) one.hidden = none;
  element("no-cells").hidden = !site || !none;
  if (none) return;
  const cells = cellsOf(site), values = cells.map((row) => row.map(SCALED[scale]));
  const { colorbar, ...range } = bar(scale, values.flat());
  const shown = scale === "chance" ? values.map((row) => row.map((v) => (known(v) ? Math.log10(Math.max(1, v)) : null))) : values;
  const words = (one) => [
    `i ${one.i}, j ${one.j}`, `φ ${short(one.phi)}`, `control ${known(one.control) ? short(one.control) : "none"}`,
    `chance ${short(one.chance)}`, `p ${pText(one.p)}`,
  ];
  element("grid").setAttribute("aria-label", `${SCALES[scale]} by i and j at ${where(site)}`);
  draw("grid", [{
    type: "heatmap", z: shown, x0: 1, dx: 1, y0: 1, dy: 1, hovertext: cells.map((row) => row.map((one) => words(one).join("<br>"))),
    hoverinfo: "text", hoverongaps: false, ...range, colorbar: { ...colorbar, thickness: 12, outlinewidth: 0 },
  }], {
    xaxis: { title: { text: plain(`j, of ${pairs[site.pair].right}`) }, showgrid: false, tickvals: sizesUpTo(site.columns) },
    yaxis: { title: { text: plain(`i, of ${pairs[site.pair].left}`) }, autorange: "reversed", showgrid: false, tickvals: sizesUpTo(site.rows) },
    margin: { l: 48, r: 8, t: 8, b: 44 },
    plot_bgcolor: color("blank"), ...framed("grid", site.columns, site.rows, (x, y) => words(cells[y][x]).join(", ")),
  });
}

function drawAngles(site) {
  if (!site) return;
  const counted = site.k_star ?? 0;
  draw("angles", [{
    x: site.cos2.map((_, n) => n + 1), y: site.cos2, mode: "markers", hovertemplate: "angle %{x}: cos² %{y:.3f}<extra></extra>",
    marker: { size: 8, color: site.cos2.map((_, n) => (n < counted ? lines()[1] : lines()[0])), symbol: site.cos2.map((_, n) => (n < counted ? "circle" : "circle-open")) },
  }], {
    margin: { l: 48, r: 8, t: 8, b: 44 }, xaxis: { title: { text: "angle" }, rangemode: "tozero", tickvals: sizesUpTo(site.cos2.length) }, yaxis: { title: { text: "cos²" }, range: [0, 1.03] },
  });
}

function drawSpectra(site) {
  if (!site) return;
  const { left, right, steps } = pairs[site.pair];
  const of = (arm, step) => spectra.find((one) => one.arm === arm && one.step === step
    && one.basis === site.basis && one.layer === site.layer && one.projection === site.projection);
  const traces = [[left, steps[0]], [right, steps[1]]].map(([arm, step], n) => {
    const values = of(arm, step)?.values ?? [];
    return {
      name: plain(left === right ? `${arm}, step ${step}` : arm), x: values.map((_, k) => k + 1), y: values, mode: "lines+markers", line: style(n),
      marker: { size: 5, symbol: MARKS[n] }, hovertemplate: "%{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    };
  });
  draw("spectra", traces, {
    showlegend: true, xaxis: { title: { text: "direction" } }, yaxis: { title: { text: "singular value" }, type: "log", exponentformat: "power" },
  });
}

const where = (site) => `layer ${site.layer}, ΔW_${site.projection}`;

function siteWords(site) {
  if (!known(site.first)) return site.reason ?? "";
  const counted = known(site.k_star)
    ? `${site.k_star} of ${site.cos2.length} directions are shared beyond chance (k_star${site.k_star ? `; mean cos² ${short(site.k_star_cos2)}` : ""})` : site.reason;
  return `${counted}. φ(1, 1) ${short(site.first)} (chance ${short(site.null_first)}, p ${pText(site.p_first)}); `
    + `φ of the whole spans ${short(site.corner)} (chance ${short(site.null_corner)}, p ${pText(site.p_corner)}).`;
}

function drawSite() {
  const site = current();
  element("site-title").textContent = site ? where(site) : "Nothing is compared here";
  element("site-words").textContent = site ? siteWords(site) : "";
  const canControl = site && pairs[site.pair].controls.length > 0;
  fill("scale", Object.entries(SCALES).filter(([scale]) => scale !== "control" || canControl));
  for (const id of ["of-angles", "of-spectra"]) element(id).hidden = !site;
  for (const chart of [drawGrid, drawAngles, drawSpectra]) soon(() => chart(current()));
}

// The map of layers and matrices

const axesOfMap = () => {
  const shown = shownSites();
  return { layers: unique(shown.map((s) => s.layer)).sort((a, b) => a - b), projections: unique(shown.map((s) => s.projection)) };
};

function mapTraces(layers, projections, value, hover, kind) {
  const z = projections.map((projection) => layers.map((layer) => value(layer, projection) ?? null));
  const most = Math.max(...z.flat().filter(known), 0);
  const top = kind === "evolution" ? 1 : Math.max(1, Math.ceil(10 * most)) / 10; // one scale for all steps
  const range = kind === "k_star" ? { zmin: 0, zmax: Math.max(1, most), colorscale: "Cividis" }
    : { zmin: 0, zmax: top, colorscale: scaleOf(data.colors.phi) };
  const gap = layers.length > 32 ? 0 : 1;
  return [{
    type: "heatmap", z, x: layers.map((_, n) => n), y: projections.map((_, n) => n), xgap: gap, ygap: 1, ...range, hoverongaps: false,
    hovertext: projections.map((projection) => layers.map((layer) => plain(hover(layer, projection)))), hoverinfo: "text",
    colorbar: { thickness: 12, outlinewidth: 0 },
  }];
}

function mapLayout(layers, projections) {
  const every = Math.ceil(layers.length / 16), ticks = layers.map((_, n) => n).filter((n) => n % every === 0);
  return {
    xaxis: { title: { text: "layer" }, tickvals: ticks, ticktext: ticks.map((n) => String(layers[n])), showgrid: false },
    yaxis: { tickvals: projections.map((_, n) => n), ticktext: projections.map((each) => plain(`ΔW_${each}`)), showgrid: false, autorange: "reversed" },
    plot_bgcolor: color("blank"), margin: { l: 48, r: 8, t: 8, b: 40 }, height: 120 + 40 * projections.length,
  };
}

function measureText(layer, projection) {
  const site = siteAt(layer, projection), measure = element("measure").value;
  return `layer ${layer}, ΔW_${projection}: ${MEASURES[measure]} ${short(site?.[measure], measure === "k_star" ? 0 : 3)}`;
}

function drawMap() {
  const { layers, projections } = axesOfMap(), measure = element("measure").value;
  draw("map", mapTraces(layers, projections, (l, p) => siteAt(l, p)?.[measure], measureText, measure), {
    ...mapLayout(layers, projections),
    ...framed("map", layers.length, projections.length, (x, y) => measureText(layers[x], projections[y])),
  });
}

function chooseSite() {
  const { layers, projections } = axesOfMap();
  cursors.map.x = layers.indexOf(Number(element("layer").value));
  cursors.map.y = projections.indexOf(element("projection").value);
  drawMap();
  drawSite();
}

function openSite(x, y) {
  const { layers, projections } = axesOfMap();
  element("layer").value = layers[x];
  element("projection").value = projections[y];
  chooseSite();
  element("site-title").focus();
}

function choosePair() {
  const name = element("pair").value, steps = pairs.map((pair, n) => [n, stepOf(pair.steps), nameOf(pair)]).filter((each) => each[2] === name);
  fill("step", steps);
  labelOf("step").hidden = steps.length < 2;
  chooseStep();
}

function chooseStep() {
  fill("basis", unique(sites.filter((s) => s.pair === chosenPair()).map((s) => s.basis)).map((basis) => [basis, basis]));
  chooseBasis();
}

function chooseBasis() {
  element("basis-meaning").textContent = `Basis ${element("basis").value}: ${data.grids.bases[element("basis").value]}`;
  const { layers, projections } = axesOfMap();
  fill("layer", layers.map((layer) => [layer, layer]));
  fill("projection", projections.map((projection) => [projection, projection]));
  chooseSite();
}

// Training

function drawEvolution() {
  const table = data.evolution;
  if (!table) return;
  const arm = element("evolution-arm").value, measure = element("evolution-measure").value, random = measure.replace("phi", "null");
  const rows = table.left.map((_, n) => n).filter((n) => table.left[n] === arm);
  const steps = unique(rows.map((n) => table.step_left[n])).sort((a, b) => a - b);
  const slider = element("evolution-slider");
  slider.max = steps.length - 1;
  const step = steps[Number(slider.value)];
  element("evolution-step").textContent = `${step} against ${table.step_right[rows[0]]}`;
  slider.setAttribute("aria-valuetext", `step ${step}`);
  const at = new Map(rows.filter((n) => table.step_left[n] === step).map((n) => [`${table.layer[n]} ${table.projection[n]}`, n]));
  const layers = unique(rows.map((n) => table.layer[n])).sort((a, b) => a - b), projections = unique(rows.map((n) => table.projection[n]));
  const value = (layer, projection, of = measure) => table[of][at.get(`${layer} ${projection}`)];
  const words = (layer, projection) => `step ${step}, layer ${layer}, ΔW_${projection}: φ ${short(value(layer, projection))}, chance ${short(value(layer, projection, random))}`;
  element("evolution-map").setAttribute("aria-label", `φ of step ${step} with the last step of ${arm} in the basis ${table.basis}, by layer and matrix`);
  draw("evolution-map", mapTraces(layers, projections, value, words, "evolution"), {
    ...mapLayout(layers, projections),
    ...framed("evolution-map", layers.length, projections.length, (x, y) => words(layers[x], projections[y])),
  });
}

const hiddenArms = new Set();

function swatch({ color: stroke, dash }) { // of a line
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS(svg.namespaceURI, "line");
  for (const [name, value] of Object.entries({ width: 28, height: 8, "aria-hidden": "true" })) svg.setAttribute(name, value);
  const look = { x1: 0, x2: 28, y1: 4, y2: 4, stroke, "stroke-width": 2.5, "stroke-dasharray": dash === "solid" ? "none" : dash };
  for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

function drawCurves() {
  const none = data.curves.length === 0, arms = unique(data.curves.map((curve) => curve.arm));
  for (const id of ["curves", "curves-arms", "curves-help"]) element(id).hidden = none;
  element("no-curves").hidden = !none;
  if (none) return;
  for (const [n, button] of [...element("curves-arms").children].entries()) {
    button.setAttribute("aria-pressed", String(!hiddenArms.has(arms[n])));
    button.firstChild.replaceWith(swatch(style(n)));
  }
  draw("curves", data.curves.map((curve) => {
    const n = arms.indexOf(curve.arm), validation = curve.kind === "validation";
    return {
      name: plain(`${curve.arm}, ${curve.kind}`), x: curve.steps, y: curve.losses, mode: validation ? "lines+markers" : "lines",
      line: { ...style(n), width: validation ? 2.5 : 1 }, marker: { size: 7, symbol: MARKS[n % MARKS.length] },
      visible: !hiddenArms.has(curve.arm), hovertemplate: `step %{x}: %{y:${FIVE}}<extra>%{fullData.name}</extra>`,
    };
  }), { margin: { l: 48, r: 8, t: 8, b: 44 }, xaxis: { title: { text: "step" } }, yaxis: { title: { text: "loss, nats" } }, showlegend: false });
}

function toggleArm(arm) {
  if (!hiddenArms.delete(arm)) hiddenArms.add(arm);
  drawCurves();
}

element("curves-arms").replaceChildren(...unique(data.curves.map((curve) => curve.arm)).map((arm) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(document.createElement("span"), arm);
  button.addEventListener("click", () => toggleArm(arm));
  return button;
}));

fill("pair", unique(pairs.map(nameOf)).map((name) => [name, name]));
fill("measure", Object.entries(MEASURES));
fill("scale", Object.entries(SCALES));
element("left-out").textContent = data.grids.left_out;
element("evolution").hidden = !data.evolution;
element("no-evolution").hidden = Boolean(data.evolution);
if (data.evolution) {
  fill("evolution-arm", unique(data.evolution.left).map((arm) => [arm, arm]));
  fill("evolution-measure", [["phi_corner", "φ of the whole spans, with the last step"], ["phi_first", "φ(1, 1), with the last step"]]);
  element("evolution-basis").textContent = `Basis ${data.evolution.basis}: ${data.grids.bases[data.evolution.basis]}`;
}
const CONTROLS = {
  pair: choosePair, step: chooseStep, basis: chooseBasis, measure: drawMap, layer: chooseSite, projection: chooseSite, scale: drawSite,
  "evolution-arm": drawEvolution, "evolution-measure": drawEvolution,
};
for (const [id, changed] of Object.entries(CONTROLS)) element(id).addEventListener("change", changed);
element("evolution-slider").addEventListener("input", drawEvolution);
element("near").addEventListener("click", ({ currentTarget: button }) => {
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  drawLosses();
});
for (const id of Object.keys(cursors)) element(id).addEventListener("keydown", moveFrame);
element("map").addEventListener("keydown", ({ key: pressed }) => (pressed === "Enter" ? openSite(cursors.map.x, cursors.map.y) : undefined));

drawLosses();
if (pairs.length) choosePair();
for (const drawn of [drawEvolution, drawCurves, () => { document.documentElement.dataset.ready = "yes"; }]) soon(drawn); // ready: all is drawn
opening = false;
goOn();
element("map").on?.("plotly_click", ({ points: [point] }) => openSite(point.x, point.y));
DARK.addEventListener("change", () => [drawLosses, drawMap, drawSite, drawEvolution, drawCurves].forEach((drawn) => drawn()));
