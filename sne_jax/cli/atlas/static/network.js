/* The picture of a network: its rows from input to output, and its weights. */

const WORD_COLOURS = {
  linear: "#1f8ad2", conv: "#d55e00", norm: "#009e73", attention: "#cc79a7",
  embedding: "#e69f00", other: "#8d949c",
};
const ROW = 42, BOX = { left: 46, width: 168, height: 34 }, BARS = 226, END = 352;
const BINS = 20;

/** Returns an element of a picture. */
function drawn(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function shortened(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** Draws the histogram of a row: bars, ends, and where zero is. */
function histogram(ranges, counts, top, colour) {
  const [low, high, mean, deviation] = ranges;
  const group = drawn("g", {});
  const wide = (END - BARS) / BINS, base = top + 24;
  const told = `${numberText(low)} to ${numberText(high)}, mean ` +
    `${numberText(mean)}, deviation ${numberText(deviation)}`;
  group.append(drawn("title", {}, told));
  counts.forEach((count, k) => {
    const high = (count / 255) * 24;
    group.append(drawn("rect", {
      x: BARS + k * wide, y: base - high, width: wide - 0.5, height: high,
      fill: colour,
    }));
  });
  group.append(drawn("line", {
    x1: BARS, x2: END, y1: base + 0.5, y2: base + 0.5, class: "axis",
  }));
  if (low < 0 && high > 0) {
    const zero = BARS - (low / (high - low)) * (END - BARS);
    group.append(drawn("line", {
      x1: zero, x2: zero, y1: base + 3, y2: top, class: "zero",
    }));
  }
  group.append(
    drawn("text", { x: BARS, y: base + 11, class: "small" }, numberText(low)),
    drawn("text", {
      x: END, y: base + 11, class: "small", "text-anchor": "end",
    }, numberText(high)),
  );
  return group;
}

/** Returns the picture of a network. */
function networkPicture(data, network) {
  const number = data.arrays.spec[network];
  const spec = data.specs[number];
  const row = data.arrays.row[network];
  const height = ROW * spec.rows.length + 8;
  const svg = drawn("svg", {
    viewBox: `0 0 ${END + 6} ${height}`, role: "img", class: "picture",
    "aria-label": `Layers of ${data.names[network]}`,
  });
  const middle = (r) => ROW * r + 4 + BOX.height / 2;
  const rowOf = (level) => spec.rows.findLastIndex((r) => r.first <= level);
  for (const [source, target] of spec.skips) {
    const [a, b] = [rowOf(source), rowOf(target)];
    if (a === b || a < 0) continue;
    const far = Math.max(4, 40 - 7 * (b - a));
    svg.append(drawn("path", {
      d: `M ${BOX.left} ${middle(a)} C ${far} ${middle(a)} ${far} ${middle(b)}` +
        ` ${BOX.left} ${middle(b)}`,
      class: "skip",
    }));
  }
  spec.rows.forEach((of, r) => {
    const top = ROW * r + 4, colour = WORD_COLOURS[of.word];
    if (r) {
      const x = BOX.left + BOX.width / 2;
      svg.append(drawn("line", {
        x1: x, x2: x, y1: top - ROW + BOX.height, y2: top, class: "axis",
      }));
    }
    svg.append(drawn("rect", {
      x: BOX.left, y: top, width: BOX.width, height: BOX.height, rx: 4,
      fill: colour, "fill-opacity": 0.16, stroke: colour,
    }, drawn("title", {}, `${of.label}: ${of.size} weights`)));
    const told = [of.shape.join(" × "), ...of.others, of.activation].filter(Boolean);
    svg.append(
      drawn("text", { x: BOX.left + 8, y: top + 14 }, shortened(of.label, 26)),
      drawn("text", { x: BOX.left + 8, y: top + 28, class: "small" },
        shortened(`${of.word} ${told.join(", ")}`, 32)),
    );
    const place = row * spec.rows.length + r;
    const ranges = data.arrays[`ranges/${number}`];
    const counts = data.arrays[`counts/${number}`];
    svg.append(histogram(
      ranges.subarray(4 * place, 4 * place + 4),
      counts.subarray(BINS * place, BINS * place + BINS), top, colour,
    ));
  });
  return svg;
}

/** Fills the panel: what is known of a network, its picture, neighbours. */
function showNetwork(panel, data, state, network, choose) {
  const spec = data.specs[data.arrays.spec[network]];
  const facts = element("dl", { class: "facts" });
  const rest = element("dl", { class: "facts" });
  const fact = (list, name, value, about = "") => list.append(
    element("dt", { title: about }, name), element("dd", {}, value),
  );
  fact(facts, "architecture", spec.architecture);
  fact(facts, "parameters", spec.parameters.toLocaleString("en"));
  data.columns.forEach((column, place) => {
    if (column.name === "parameters") return;
    const isFirst = column.inTip || place === state.colour;
    fact(isFirst ? facts : rest, column.name, valueText(data, place, network),
      column.about);
  });
  const near = element("ol", { class: "near" });
  const width = data.neighbours;
  for (let k = 0; k < width; k++) {
    const other = data.arrays.near[width * network + k];
    const far = data.arrays.far[width * network + k];
    const told = `${data.columns[state.colour].name}: ` +
      `${valueText(data, state.colour, other)}; distance ${numberText(far)}`;
    near.append(element("li", {},
      element("button", { type: "button", onclick: () => choose(other) },
        data.names[other]),
      element("span", {}, told),
    ));
  }
  panel.replaceChildren(
    element("h2", {}, data.names[network]), facts,
    element("h3", {}, "Layers, and their weights"),
    networkPicture(data, network),
    element("h3", {}, `Nearest by ${data.codeName}`), near,
    element("h3", {}, "What else is known"), rest,
  );
}
