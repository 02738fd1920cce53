// Two orders of the same voxels: (i, j, k) as the scan's file has them, which is what the server
// speaks, and (x, y, z) towards right, anterior and superior, which is what the viewer draws.

// For each of x, y, z: which of i, j, k it is, and whether it runs the other way.
export function gridOf(volume) {
  const axes = Array.from(volume.permRAS, (p) => Math.abs(p) - 1);
  const flips = Array.from(volume.permRAS, (p) => p < 0);
  const ijk = Array.from(volume.hdr.dims.slice(1, 4));
  return { axes, flips, ijk, xyz: axes.map((axis) => ijk[axis]) };
}

export function ijkOf(grid, xyz) {
  const ijk = [0, 0, 0];
  grid.axes.forEach((axis, r) => {
    ijk[axis] = grid.flips[r] ? grid.xyz[r] - 1 - xyz[r] : xyz[r];
  });
  return ijk;
}

export function xyzOf(grid, ijk) {
  return grid.axes.map((axis, r) => (grid.flips[r] ? grid.xyz[r] - 1 - ijk[axis] : ijk[axis]));
}

// A box of labels, i running fastest, becomes the same box with x running fastest.
export function boxToXyz(grid, box, labels) {
  const size = box.map(([low, high]) => high - low);
  const strides = [1, size[0], size[0] * size[1]];
  const n = grid.axes.map((axis) => size[axis]);
  const step = grid.axes.map((axis, r) => (grid.flips[r] ? -strides[axis] : strides[axis]));
  const first = grid.axes.reduce(
    (sum, axis, r) => sum + (grid.flips[r] ? (size[axis] - 1) * strides[axis] : 0), 0);
  const start = grid.axes.map((axis, r) =>
    grid.flips[r] ? grid.xyz[r] - box[axis][1] : box[axis][0]);
  const out = new Uint8Array(labels.length);
  let to = 0;
  for (let z = 0; z < n[2]; z++) {
    for (let y = 0; y < n[1]; y++) {
      let from = first + z * step[2] + y * step[1];
      for (let x = 0; x < n[0]; x++, from += step[0]) out[to++] = labels[from];
    }
  }
  return { start, size: n, labels: out };
}

// What the server packs: zlib (RFC 1950) in base64.
export async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
