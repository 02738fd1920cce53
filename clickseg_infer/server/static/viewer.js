// The slices: NiiVue draws them, and is told where. Its own mouse and keys are off; `pointer.js`
// and `keys.js` have ours. Labels go to the graphics card box by box, never the whole volume.

import { boxToXyz, gridOf, ijkOf, unpack, xyzOf } from "./grid.js";

const { Niivue, NVImage } = globalThis.niivue;

export const AXIAL = 0, CORONAL = 1, SAGITTAL = 2;
const DEPTH = [2, 1, 0]; // which of x, y, z a view pages through
const GAP = 6; // pixels between views
const LARGE = 0.68; // of the stage, for the large view
const MOST_ZOOM = 20;
const SHADING = [33990, 33992]; // texture units 6 and 8

export class Viewer {
  constructor(canvas, afterDrawing) {
    this.canvas = canvas;
    this.large = AXIAL;
    this.single = false;
    this.grid = null;
    this.nv = new Niivue({
      interactive: false,
      isRadiologicalConvention: true,
      isSliceMM: false, // a view is a plane of voxels, so that a click hits what it shows
      isOrientationTextVisible: false,
      crosshairWidth: 0, // `ink.js` draws one of a pixel, whatever a voxel's size
      sagittalNoseLeft: true,
      backColor: [0, 0, 0, 1],
      isNearestInterpolation: false,
      logLevel: "error",
      loadingText: "",
      maxDrawUndoBitmaps: 1,
    });
    // NiiVue also prepares the shading of 3D renderings, which we never show: in textures of next
    // to nothing it takes no time, and not twice the scan's memory.
    const texture = this.nv.rgbaTex.bind(this.nv);
    this.nv.rgbaTex = (id, unit, dims, ...rest) =>
      texture(id, unit, SHADING.includes(unit) ? [dims[0], 1, 1, dims[3]] : dims, ...rest);
    const draw = this.nv.drawScene.bind(this.nv);
    this.nv.drawScene = () => {
      draw();
      afterDrawing();
    };
  }

  async attach() {
    await this.nv.attachToCanvas(this.canvas, true);
    new ResizeObserver(() => this.arrange()).observe(this.canvas.parentElement);
  }

  get scan() {
    return this.nv.volumes[0];
  }

  get pixelRatio() {
    return this.nv.uiData.dpr || 1;
  }

  // Show a scan's file, which lies where the server says. If that fails, what was there stays, but
  // for its labels.
  async show(blob, [low, high], affine) {
    const url = await blob.arrayBuffer(); // gzip or not, NiiVue sees for itself
    const image = await NVImage.loadFromUrl({ url, name: "scan.nii", cal_min: low, cal_max: high });
    // Of a header's two matrices NiiVue may prefer the other one: left and right would change.
    for (const axis of [0, 1, 2]) {
      image.hdr.pixDims[axis + 1] = Math.hypot(...[0, 1, 2].map((row) => affine[row][axis]));
    }
    image.setAffine(affine);
    const before = this.scan;
    try {
      this.place(image);
    } catch (error) {
      if (before) this.place(before);
      throw error;
    }
  }

  place(image) {
    this.grid = null;
    this.nv.closeDrawing();
    for (const volume of [...this.nv.volumes]) this.nv.removeVolume(volume);
    this.nv.addVolume(image);
    this.grid = gridOf(image);
    this.nv.createEmptyDrawing();
    this.nv.scene.crosshairPos = this.nv.vox2frac(this.grid.xyz.map((n) => n >> 1));
    this.fit();
    this.arrange();
  }

  // Take all labels off the picture.
  wipe() {
    this.nv.closeDrawing();
    this.nv.createEmptyDrawing();
  }

  // One large view and two small ones beside it or below, or the large one alone.
  arrange() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (!width || !height) return;
    const others = [AXIAL, CORONAL, SAGITTAL].filter((view) => view !== this.large);
    const wide = width > height;
    const [length, across] = wide ? [width, height] : [height, width];
    const turn = ([l, t, w, h]) => (wide ? [l, t, w, h] : [t, l, h, w]);
    const gap = GAP / length, half = (1 - GAP / across) / 2;
    const rest = 1 - LARGE - gap;
    const tiles = this.single
      ? [[this.large, [0, 0, 1, 1]]]
      : [
          [this.large, turn([0, 0, LARGE, 1])],
          [others[0], turn([LARGE + gap, 0, rest, half])],
          [others[1], turn([LARGE + gap, 1 - half, rest, half])],
        ];
    this.nv.setCustomLayout(tiles.map(([sliceType, position]) => ({ sliceType, position })));
  }

  // Labels of a box of the scan's file, as they came from the server.
  async patch({ box, labels }) {
    const part = boxToXyz(this.grid, box, await unpack(labels));
    const [x, y, z] = part.start, [w, h, d] = part.size;
    const [nx, ny] = this.grid.xyz;
    for (let row = 0; row < h * d; row++) {
      const to = x + nx * (y + (row % h) + ny * (z + Math.floor(row / h)));
      this.nv.drawBitmap.set(part.labels.subarray(row * w, (row + 1) * w), to);
    }
    const { gl } = this.nv;
    gl.activeTexture(gl.TEXTURE7); // where NiiVue keeps its drawing
    gl.bindTexture(gl.TEXTURE_3D, this.nv.drawTexture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texSubImage3D(
      gl.TEXTURE_3D, 0, x, y, z, w, h, d, gl.RED, gl.UNSIGNED_BYTE, part.labels);
    this.nv.drawScene();
  }

  // Colours by label: an array of [number, "#rrggbb"].
  colour(pairs) {
    const lut = new Uint8ClampedArray(256 * 4);
    for (const [number, text] of pairs) {
      const rgb = [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
      lut.set([...rgb, 255], number * 4);
    }
    this.nv.drawLut = { lut, labels: [] };
    this.nv.refreshColormaps();
    this.nv.drawScene();
  }

  set opacity(value) {
    this.nv.drawOpacity = value;
    this.nv.drawRimOpacity = value === 0 ? 0 : Math.min(1, value + 0.45);
    this.nv.drawScene();
  }

  get window() {
    return [this.scan.cal_min, this.scan.cal_max];
  }

  set window([low, high]) {
    this.scan.cal_min = low;
    this.scan.cal_max = Math.max(high, low + 1);
    this.nv.updateGLVolume();
  }

  // What lies under a place on the stage in CSS pixels: the view and its voxel; null for nothing.
  pick(left, top) {
    if (!this.grid) return null;
    const [px, py] = [left * this.pixelRatio, top * this.pixelRatio];
    const tile = this.nv.tileIndex(px, py);
    if (tile < 0) return null;
    const frac = Array.from(this.nv.screenXY2TextureFrac(px, py, tile, false));
    const xyz = frac.map((f, r) => Math.floor(f * this.grid.xyz[r]));
    const inside = xyz.every((p, r) => p >= 0 && p < this.grid.xyz[r]);
    const view = this.nv.screenSlices[tile].axCorSag;
    return { tile, view, frac, inside, xyz, ijk: inside ? ijkOf(this.grid, xyz) : null };
  }

  // Where a voxel of the file is drawn: [left, top] in CSS pixels of every view, [] if not at all.
  placesOf(ijk, reach = 0) {
    const xyz = xyzOf(this.grid, ijk), here = this.position;
    const places = [];
    this.nv.screenSlices.forEach((slice, tile) => {
      const axis = DEPTH[slice.axCorSag];
      const away = Math.abs(xyz[axis] - here[axis]);
      if (away > reach) return;
      const frac = xyz.map((p, r) => (p + 0.5) / this.grid.xyz[r]);
      frac[axis] = this.nv.scene.crosshairPos[axis];
      const found = this.nv.frac2canvasPosWithTile(frac, slice.axCorSag);
      if (found) places.push({ tile, away, at: found.pos.map((p) => p / this.pixelRatio) });
    });
    return places;
  }

  // The voxel (x, y, z) that the three views meet in.
  get position() {
    return Array.from(this.nv.scene.crosshairPos, (f, r) =>
      Math.min(this.grid.xyz[r] - 1, Math.floor(f * this.grid.xyz[r])));
  }

  // Show the slices through a voxel (x, y, z).
  goTo(xyz) {
    const inside = xyz.map((p, r) => Math.min(Math.max(p, 0), this.grid.xyz[r] - 1));
    this.nv.scene.crosshairPos = this.nv.vox2frac(inside);
    this.nv.drawScene();
  }

  goToFile(ijk) {
    this.goTo(xyzOf(this.grid, ijk));
  }

  page(view, slices) {
    const xyz = this.position;
    xyz[DEPTH[view]] += slices;
    this.goTo(xyz);
  }

  valueAt(ijk) {
    const { hdr, img } = this.scan;
    const [ni, nj] = this.grid.ijk;
    return img[ijk[0] + ni * (ijk[1] + nj * ijk[2])] * (hdr.scl_slope || 1) + (hdr.scl_inter || 0);
  }

  fit() {
    this.nv.setPan2Dxyzmm([0, 0, 0, 1]);
  }

  // Enlarge around a picked place, which stays where it is. At its smallest the picture goes back
  // to the middle, unless fingers hold it.
  zoom(factor, place, held = false) {
    const pan = Array.from(this.nv.scene.pan2Dxyzmm);
    const wanted = Math.min(Math.max(pan[3] * factor, 1), MOST_ZOOM);
    if (wanted === 1 && !held) return this.fit();
    const mm = this.nv.frac2mm(place.frac);
    const moved = [0, 1, 2].map((r) => pan[r] + mm[r] * (pan[3] - wanted));
    this.nv.setPan2Dxyzmm([...moved, wanted]);
  }

  pan(from, to) {
    const pan = Array.from(this.nv.scene.pan2Dxyzmm);
    const [a, b] = [this.nv.frac2mm(from.frac), this.nv.frac2mm(to.frac)];
    const moved = [0, 1, 2].map((r) => pan[r] + (b[r] - a[r]) * pan[3]);
    this.nv.setPan2Dxyzmm([...moved, pan[3]]);
  }

  // Every view on the stage: its frame in CSS pixels, where the other two cross it, the slice it
  // shows, and pixels per mm.
  get tiles() {
    return this.nv.screenSlices.map((slice) => {
      const [left, top, width, height] = slice.leftTopWidthHeight.map((p) => p / this.pixelRatio);
      const axis = DEPTH[slice.axCorSag];
      const cross = this.nv.frac2canvasPosWithTile(this.nv.scene.crosshairPos, slice.axCorSag);
      return {
        view: slice.axCorSag, left, top, width, height,
        cross: cross?.pos.map((p) => p / this.pixelRatio),
        slice: this.position[axis] + 1, slices: this.grid.xyz[axis],
        pixelsPerMm: Math.abs(width / slice.fovMM[0]),
      };
    });
  }
}
