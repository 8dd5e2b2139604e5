"""Ways to damage a file: bytes, the parts of an archive, a header.

An edit is a triple of numbers in [0, 1): what to do, where, and with what; so
a list of edits can be drawn by hypothesis or at random, and shrinks.
"""

import io
import json
import re
import struct
import zipfile

NUMBERS = [
  *(0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000),
  *(0xFFFFFFFF, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1),
]
SNIPPETS = [
  b"cposix\nsystem\nX\x10\x00\x00\x00touch ./canary..\x85R",
  b"cos\nsystem\n",
  b"\x80\x04\x8c\x05posix\x8c\x06system\x93",
  b"r\xff\xff\xff\x7f",
  b"../../canary",
  *(
    b"NaN",
    b'"',
    b"{",
    b"[" * 50,
    b"-1",
    b"1e999",
    b"\x00" * 16,
    b"PK\x05\x06",
  ),
]


def edit_bytes(data, edits, other=b""):
  """Applies edits to bytes; `other` is a file that pieces are taken from."""
  data = bytearray(data)
  for kind, where, what in edits:
    at = int(where * (len(data) + 1))
    size = int(what * 32) + 1
    choice = int(kind * 9)
    if choice == 0:
      del data[at:]
    elif choice == 1 and at < len(data):
      data[at] ^= 1 << int(what * 8)
    elif choice == 2 and at < len(data):
      data[at] = int(what * 256)
    elif choice == 3:
      del data[at : at + size]
    elif choice == 4:
      data[at:at] = data[at : at + size]
    elif choice in (5, 6):
      number = NUMBERS[int(what * len(NUMBERS))]
      width = (1, 2, 4, 8)[int(where * 4096) % 4]
      form = "little" if choice == 5 else "big"
      number &= (1 << 8 * width) - 1
      data[at : at + width] = number.to_bytes(width, form)
    elif choice == 7:
      start = int(what * len(other))
      data[at : at + size] = other[start : start + size * 4]
    else:
      data[at:at] = SNIPPETS[int(what * len(SNIPPETS))]
  return bytes(data)


def edit_archive(data, edits, other=b""):
  """Edits one member of a zip archive, which stays sound otherwise."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    infos = archive.infolist()
    members = {i.filename: archive.read(i) for i in infos}
    packs = {i.filename: i.compress_type for i in infos}
  kind, where, what = edits[0]
  name = list(members)[int(where * len(members))]
  if kind < 0.1:
    members[SNIPPETS[4].decode() if what < 0.3 else name + "x"] = members.pop(
      name
    )
  elif kind < 0.15:
    members.pop(name)
  elif name.endswith(".json") and where < 0.9:
    members[name] = edit_json(members[name], edits)
  else:
    members[name] = edit_bytes(members[name], edits[1:] or edits, other)
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    for name, inner in members.items():
      archive.writestr(name, inner, packs.get(name, zipfile.ZIP_STORED))
  return file.getvalue()


def edit_json(data, edits):
  """Edits values of a JSON text, which stays JSON."""
  tree = json.loads(data)
  for kind, where, what in edits:
    node, digits = tree, where
    while True:  # Down a random path, and a little more often to its end.
      keys = list(node) if isinstance(node, dict) else range(len(node))
      if not keys:
        break
      digits = digits * 7919 % 1
      key = list(keys)[int(digits * len(keys))]
      inner = node[key]
      if isinstance(inner, dict | list) and inner and digits < 0.95:
        node = inner
        continue
      if kind < 0.2:
        del node[key]
      elif kind < 0.6:
        choices = (*NUMBERS, -1, 2, 0.5, None, "", True, [], {}, "x", [1, 2])
        node[key] = choices[int(what * len(choices))]
      elif isinstance(inner, int | float):
        node[key] = inner + int(what * 5) - 2
      elif isinstance(node, list):
        node.insert(0, node[-1])
      else:
        node[key] = [inner]
      break
  return json.dumps(tree).encode()


def edit_onnx(data, edits):
  """Edits nodes of an ONNX graph, which stays one."""
  import onnx

  model = onnx.ModelProto.FromString(data)
  nodes = model.graph.node
  for kind, where, what in edits:
    if not nodes:
      break
    node = nodes[int(where * len(nodes))]
    choice, size = int(kind * 7), len(node.input)
    other = nodes[int(what * len(nodes))]
    if choice == 0:
      nodes.remove(node)
    elif choice == 1 and size:
      node.input[int(what * size)] = ""
    elif choice == 2 and size:
      names = [*other.output, *(t.name for t in model.graph.initializer)]
      node.input[int(where * 4096) % size] = names[int(what * len(names))]
    elif choice == 3:
      node.op_type = other.op_type
    elif choice == 4 and node.attribute:
      attribute = node.attribute[int(what * len(node.attribute))]
      attribute.i = NUMBERS[int(what * 4096) % 5] - 2
      if attribute.ints:
        attribute.ints[0] = int(what * 9) - 2
    elif choice == 5:
      node.attribute.extend([*other.attribute])  # It may be the same node.
    elif size:
      node.input.append(node.input[0])
  return model.SerializeToString()


def edit_header(data, edits, other=b""):
  """Edits the header of a safetensors file, whose length is then set right."""
  (length,) = struct.unpack("<Q", data[:8])
  text, rest = data[8 : 8 + length], data[8 + length :]
  kind, where, what = edits[0]
  if kind < 0.5:
    table = json.loads(text)
    name = list(table)[int(where * len(table))]
    item = table[name]
    number = NUMBERS[int(what * len(NUMBERS))]
    field = list(item)[int(where * 64) % len(item)]
    if isinstance(item[field], list) and item[field]:
      item[field][int(what * 64) % len(item[field])] = number
    else:
      item[field] = number
    text = json.dumps(table).encode()
  else:
    text = edit_bytes(text, edits[1:] or edits, other)
  return struct.pack("<Q", len(text)) + text + rest


def mutate(data, edits, other=b""):
  """Damages a file in a way that suits it, or just its bytes."""
  inside = sum(part[2] for part in edits) % 1 < 0.6
  if inside and data.startswith(b"PK"):
    return edit_archive(data, edits, other)
  if inside and data[8:9] == b"{":
    return edit_header(data, edits, other)
  if inside and re.match(rb"\x08.\x12.(test|pytorch):", data, re.DOTALL):
    return edit_onnx(data, edits)
  return edit_bytes(data, edits, other)
