/* The map: points drawn by Plotly. Nothing else here knows of it. */

const PALETTE = [
  "#1f8ad2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9",
  "#8c6d31", "#7b5ea7", "#b3c100", "#17a2a2",
];
const SCALES = {
  light: ["#16336b", "#3b6f9e", "#5fa08c", "#a9b84f", "#e0a100"],
  dark: ["#4668c5", "#4c9bc4", "#63bd96", "#bcd05d", "#ffe45c"],
};
const GREY = "#8d949c";

/** How a column colours the map: numbers `[N]` (NaN: grey), and a legend. */
function colouring(data, place) {
  const column = data.columns[place];
  const values = data.arrays[`column/${place}`];
  const theme = document.documentElement.dataset.theme;
  const numbers = new Float32Array(data.count).fill(NaN);
  if (column.words) {
    // Words are sorted by how many networks have them.
    const known = Math.min(column.words.length, PALETTE.length);
    values.forEach((v, i) => { if (v < known) numbers[i] = v; });
    const scale = [];
    for (let k = 0; k < known; k++) {
      scale.push([k / known, PALETTE[k]], [(k + 1) / known, PALETTE[k]]);
    }
    const items = column.words
      .slice(0, known)
      .map((word, k) => ({ word, colour: PALETTE[k], value: k }));
    if (column.words.length > known || values.includes(MISSING)) {
      items.push({ word: "others", colour: GREY, value: NaN });
    }
    return { numbers, scale, low: -0.5, high: known - 0.5, items };
  }
  const sorted = Float32Array.from(values.filter(Number.isFinite)).sort();
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  let [low, high] = sorted.length ? [at(0.01), at(0.99)] : [0, 1];
  const isLog = low > 0 && high / low > 300 && sorted[0] > 0;
  const turned = isLog ? Math.log10 : (v) => v;
  values.forEach((v, i) => { if (Number.isFinite(v)) numbers[i] = turned(v); });
  const colours = SCALES[theme];
  const ends = [numberText(low), numberText(high)];
  [low, high] = [turned(low), turned(high)];
  if (!(high > low)) high = low + 1;
  return {
    numbers, low, high, isLog, ends, colours,
    scale: colours.map((c, k) => [k / (colours.length - 1), c]),
    hasMissing: sorted.length < data.count,
  };
}

/** Whether points can be drawn by the graphics card, or what stands for it. */
function hasWebGL() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl"));
}

/** Makes the map; it calls back with numbers of networks. */
function makeMap(node, data, calls) {
  const type = hasWebGL() ? "scattergl" : "scatter";
  const size = Math.min(9, Math.max(3.5, 140 / Math.sqrt(data.count)));
  const style = getComputedStyle(document.documentElement);
  let ids = []; // Of every trace: the number of each of its points.
  let isDrawing = false; // Plotly selects anew while it draws.
  let mode = matchMedia("(pointer: coarse)").matches ? "pan" : "select";

  function traceOf(chosen, state, marker) {
    const places = data.arrays[`layout/${state.layout}`];
    const trace = {
      type,
      mode: "markers",
      hoverinfo: "none",
      x: Float32Array.from(chosen, (i) => places[2 * i]),
      y: Float32Array.from(chosen, (i) => places[2 * i + 1]),
      marker: { size, opacity: 0.85, ...marker },
      unselected: { marker: { opacity: 0.2 } },
    };
    if (state.selected) {
      trace.selectedpoints = [];
      chosen.forEach((i, k) => {
        if (state.selected.has(i)) trace.selectedpoints.push(k);
      });
    }
    return trace;
  }

  function draw(state) {
    const colours = colouring(data, state.colour);
    const isShown = (value) =>
      !state.hidden.has(Number.isNaN(value) ? "others" : value);
    const known = [], unknown = [];
    colours.numbers.forEach((value, i) => {
      if (isShown(value)) (Number.isNaN(value) ? unknown : known).push(i);
    });
    const ring = state.chosen === null ? [] : [state.chosen];
    const near = state.chosen === null ? [] : calls.neighbours(state.chosen);
    const ink = style.getPropertyValue("--ink").trim();
    const circle = (wide, line) => ({
      size: size + wide, symbol: "circle-open", color: ink, opacity: 1,
      line: { width: line },
    });
    ids = [unknown, known, near, ring];
    const traces = [
      traceOf(unknown, state, { color: GREY }),
      traceOf(known, state, {
        color: Float32Array.from(known, (i) => colours.numbers[i]),
        colorscale: colours.scale, cmin: colours.low, cmax: colours.high,
      }),
      traceOf(near, { ...state, selected: null }, circle(5, 1.5)),
      traceOf(ring, { ...state, selected: null }, circle(9, 3)),
    ];
    for (const trace of traces.slice(2)) trace.hoverinfo = "skip";
    const axis = {
      showgrid: false, zeroline: false, showticklabels: false, ticks: "",
      linecolor: style.getPropertyValue("--line").trim(), mirror: true,
    };
    const title = data.layouts[state.layout].split(" of ")[0];
    const layout = {
      xaxis: { ...axis, title: { text: `${title} 1`, standoff: 4 } },
      yaxis: {
        ...axis, title: { text: `${title} 2`, standoff: 4 }, scaleanchor: "x",
      },
      margin: { l: 26, r: 6, t: 6, b: 26 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 12, family: style.fontFamily },
      showlegend: false,
      hovermode: "closest",
      dragmode: mode,
      newselection: { line: { color: ink, width: 1.5, dash: "dot" } },
      modebar: { color: GREY, activecolor: ink, bgcolor: "rgba(0,0,0,0)" },
      uirevision: state.layout,
      selectionrevision: state.selectionNumber,
    };
    const config = {
      displaylogo: false, responsive: true, scrollZoom: true,
      displayModeBar: true,
      modeBarButtons: [
        ["select2d", "lasso2d", "pan2d"],
        ["zoomIn2d", "zoomOut2d", "resetScale2d"],
        ["toImage"],
      ],
    };
    isDrawing = true;
    return Plotly.react(node, traces, layout, config).then(() => {
      isDrawing = false;
      return colours;
    });
  }

  function listen() {
    const networkOf = (point) => ids[point.curveNumber][point.pointNumber];
    node.on("plotly_hover", (e) => calls.hover(networkOf(e.points[0]), e.event));
    node.on("plotly_unhover", () => calls.unhover());
    node.on("plotly_click", (e) => calls.choose(networkOf(e.points[0])));
    node.on("plotly_selected", (e) => {
      if (!e || isDrawing) return;
      const points = e.points.filter((p) => p.curveNumber < 2);
      calls.select(points.map(networkOf));
    });
    node.on("plotly_deselect", () => { if (!isDrawing) calls.select(null); });
    node.on("plotly_relayout", (e) => { if (e.dragmode) mode = e.dragmode; });
  }

  /** Returns where a network is on the page, `[x, y]`. */
  function pixelOf(state, network) {
    const places = data.arrays[`layout/${state.layout}`];
    const { xaxis, yaxis } = node._fullLayout;
    const box = node.getBoundingClientRect();
    return [
      box.left + xaxis._offset + xaxis.d2p(places[2 * network]),
      box.top + yaxis._offset + yaxis.d2p(places[2 * network + 1]),
    ];
  }

  return { draw, listen, pixelOf };
}
