/* Puts the page together: what the reader does changes `state`, and is drawn. */

const at = (id) => document.getElementById(id);
const [data] = await Promise.all([readData(), loadPlotly()]);
const state = {
  layout: 0, // Place in `data.layouts`.
  colour: 0, // Place in `data.columns`.
  hidden: new Set(), // Words that are not shown, by their place.
  selected: null, // Numbers of networks, a Set; null: nothing is selected.
  selectionNumber: 0, // Counts selections that are no longer drawn.
  chosen: null, // The network that is shown.
  order: { place: null, falls: false }, // Of the table.
};

const neighbours = (network) => Array.from(data.arrays.near.subarray(
  data.neighbours * network, data.neighbours * (network + 1)));

function choose(network) {
  state.chosen = network;
  showNetwork(at("network"), data, state, network, choose);
  return redraw();
}

/** Marks networks, and lists them. The line around them goes: what lies within
 * it could not be clicked. */
function select(networks) {
  state.selected = networks && networks.length ? new Set(networks) : null;
  state.selectionNumber += 1;
  table();
  return redraw();
}

function table() {
  showTable(at("selection"), data, state, {
    choose,
    clear: () => select(null),
    order: (place) => {
      const falls = state.order.place === place && !state.order.falls;
      state.order = { place, falls };
      table();
    },
  });
}

function hover(network, event) {
  const tip = at("tip");
  const spec = data.specs[data.arrays.spec[network]];
  const facts = element("dl", { class: "facts" });
  const fact = (name, value) =>
    facts.append(element("dt", {}, name), element("dd", {}, value));
  fact("architecture", spec.architecture);
  data.columns.forEach((column, place) => {
    if (place === state.colour || column.inTip) {
      fact(column.name, valueText(data, place, network));
    }
  });
  tip.replaceChildren(element("b", {}, data.names[network]), facts);
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const under = event.clientY + 14 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${event.clientY + (under ? 14 : -14 - tip.offsetHeight)}px`;
}

const map = makeMap(at("map"), data, {
  neighbours, hover, choose, select, unhover: () => { at("tip").hidden = true; },
});

function legend(colours) {
  const node = at("legend");
  if (!colours.items) {
    const bar = element("span", { class: "scale" });
    bar.style.background = `linear-gradient(to right, ${colours.colours.join()})`;
    const [low, high] = colours.ends;
    node.replaceChildren(low, bar, high + (colours.isLog ? " (logarithmic)" : ""));
    if (colours.hasMissing) node.append(swatch(GREY), "unknown");
    return;
  }
  node.replaceChildren(...colours.items.map(({ word, colour, value }) => {
    const key = Number.isNaN(value) ? "others" : value;
    const toggle = () => {
      if (!state.hidden.delete(key)) state.hidden.add(key);
      redraw();
    };
    return element("button", {
      type: "button", onclick: toggle, "aria-pressed": !state.hidden.has(key),
    }, swatch(colour), word);
  }));
}

function swatch(colour) {
  const made = element("span", { class: "swatch" });
  made.style.background = colour;
  return made;
}

async function redraw() {
  legend(await map.draw(state));
}

data.layouts.forEach((title, place) =>
  at("layout").append(element("option", { value: place }, title)));
data.columns.forEach((column, place) => {
  if (column.colours) {
    at("colour").append(element("option", { value: place }, column.name));
  }
});
state.colour = Number(at("colour").value);
at("layout").addEventListener("change", () => {
  state.layout = Number(at("layout").value);
  state.selectionNumber += 1;
  redraw();
});
at("colour").addEventListener("change", () => {
  state.colour = Number(at("colour").value);
  state.hidden.clear();
  redraw();
  table();
  if (state.chosen !== null) choose(state.chosen);
});
at("find").addEventListener("change", () => {
  const part = at("find").value.trim().toLowerCase();
  const found = [];
  data.names.forEach((name, i) => {
    if (part && name.toLowerCase().includes(part)) found.push(i);
  });
  at("found").textContent = part ? `${found.length} found` : "";
  if (found.length) choose(found[0]);
  return select(found);
});
document.documentElement.addEventListener("theme", redraw);
await redraw();
map.listen();
table();
window.atlas = { data, state, pixelOf: (network) => map.pixelOf(state, network) };
document.documentElement.dataset.ready = Math.round(performance.now());
