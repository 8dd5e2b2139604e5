/* The data of the page: one block of arrays; see sne_jax/cli/atlas/packing.py. */

const TYPES = {
  float32: Float32Array,
  int32: Int32Array,
  uint16: Uint16Array,
  uint8: Uint8Array,
};
const MISSING = 65535; // Of words.

/** Returns the bytes of a script element, which holds gzip as base64. */
async function inflated(id) {
  const text = document.getElementById(id).textContent.trim();
  let bytes;
  if (Uint8Array.fromBase64) {
    bytes = Uint8Array.fromBase64(text);
  } else {
    const raw = atob(text);
    bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  }
  const gzip = new DecompressionStream("gzip");
  return new Response(new Blob([bytes]).stream().pipeThrough(gzip)).arrayBuffer();
}

/** Returns the header of the block, with `arrays` by name. */
async function readData() {
  const buffer = await inflated("data");
  const length = new DataView(buffer).getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  const header = JSON.parse(text);
  const arrays = {};
  for (const [name, [type, shape, offset]] of Object.entries(header.arrays)) {
    const size = shape.reduce((a, b) => a * b, 1);
    arrays[name] = new TYPES[type](buffer, 4 + length + offset, size);
  }
  return { ...header, arrays };
}

/** Runs Plotly's script, which the page carries. */
async function loadPlotly() {
  const code = new Blob([await inflated("plotly")], { type: "text/javascript" });
  const url = URL.createObjectURL(code);
  await new Promise((done, failed) => {
    const script = document.createElement("script");
    script.onload = done;
    script.onerror = failed;
    script.src = url;
    document.head.append(script);
  });
  URL.revokeObjectURL(url);
}

/** Returns a number as text, of four digits. */
function numberText(value) {
  if (!Number.isFinite(value)) return "unknown";
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** Returns what a column says of a network, with its interval. */
function valueText(data, place, network) {
  const column = data.columns[place];
  const value = data.arrays[`column/${place}`][network];
  if (column.words) return value === MISSING ? "unknown" : column.words[value];
  const text = numberText(value);
  if (!column.interval || text === "unknown") return text;
  const [low, high] = ["low", "high"].map(
    (end) => data.arrays[`${end}/${place}`][network],
  );
  if (!Number.isFinite(low) || !Number.isFinite(high)) return text;
  return `${text} [${numberText(low)}, ${numberText(high)}]`;
}

/** Returns an element with attributes and children, which may be text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
