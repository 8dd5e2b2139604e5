/* The table of the networks that are brushed. */

const MOST_ROWS = 200;

/** Which columns the table has: what colours the map, and what matters. */
function tableColumns(data, state) {
  const named = data.columns.map((column) => column.name);
  const kept = data.columns
    .map((column, place) => place)
    .filter((place) => data.columns[place].inTable);
  const more = kept.filter((place) => place !== state.colour);
  const architecture = named.indexOf("architecture");
  const columns = [state.colour, ...more];
  if (architecture >= 0 && !columns.includes(architecture)) {
    columns.push(architecture);
  }
  return columns;
}

/** Returns networks in the order of a column; null: by name. */
function sorted(data, networks, order) {
  const sign = order.falls ? -1 : 1;
  const of = order.place === null
    ? (i) => data.names[i]
    : (i) => {
      const column = data.columns[order.place];
      const value = data.arrays[`column/${order.place}`][i];
      return column.words ? column.words[value] ?? "" : value;
    };
  return [...networks].sort((i, j) => {
    const [a, b] = [of(i), of(j)];
    if (Number.isNaN(a) || Number.isNaN(b)) {
      return Number.isNaN(a) - Number.isNaN(b); // Unknown ones come last.
    }
    return a < b ? -sign : a > b ? sign : 0;
  });
}

/** Returns all that is known of networks, as a table of text. */
function asCsv(data, networks) {
  const quoted = (text) =>
    /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const rows = [["name", ...data.columns.map((column) => column.name)]];
  for (const i of networks) {
    rows.push([data.names[i], ...data.columns.map((column, place) => {
      const value = data.arrays[`column/${place}`][i];
      if (column.words) return value === MISSING ? "" : column.words[value];
      return Number.isFinite(value) ? String(value) : "";
    })]);
  }
  return rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

/** Fills the table; `calls` has `choose`, `clear` and `order`. */
function showTable(node, data, state, calls) {
  if (!state.selected) {
    node.replaceChildren(element("p", { class: "hint" },
      "Draw a box or a lasso around networks to list them here."));
    return;
  }
  const networks = sorted(data, state.selected, state.order);
  const columns = tableColumns(data, state);
  const head = element("tr", {});
  for (const place of [null, ...columns]) {
    const name = place === null ? "network" : data.columns[place].name;
    const mark = state.order.place === place ? (state.order.falls ? " ↓" : " ↑") : "";
    head.append(element("th", {}, element("button", {
      type: "button", onclick: () => calls.order(place),
    }, name + mark)));
  }
  const body = element("tbody", {});
  for (const i of networks.slice(0, MOST_ROWS)) {
    const cells = columns.map((place) => element("td", {
      class: data.columns[place].words ? "" : "number",
    }, valueText(data, place, i)));
    body.append(element("tr", { onclick: () => calls.choose(i) },
      element("td", {}, element("button", { type: "button" }, data.names[i])),
      ...cells));
  }
  const save = () => {
    const url = URL.createObjectURL(
      new Blob([asCsv(data, networks)], { type: "text/csv" }));
    element("a", { href: url, download: "networks.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  const more = networks.length > MOST_ROWS ? `, the first ${MOST_ROWS} below` : "";
  node.replaceChildren(
    element("div", { class: "bar" },
      element("h2", {}, `${networks.length} selected${more}`),
      element("button", { type: "button", onclick: save }, "Save as CSV"),
      element("button", { type: "button", onclick: calls.clear }, "Clear")),
    element("div", { class: "scroll" },
      element("table", {}, element("thead", {}, head), body)),
  );
}
