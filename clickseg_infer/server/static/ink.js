// What is drawn over the slices: clicks, a crosshair, a scale bar, letters, which slice it is.

const NAMES = ["Axial", "Coronal", "Sagittal"];
// Left, top, right, bottom; the patient's right is on the left, as radiologists have it.
const LETTERS = [["R", "A", "L", "P"], ["R", "S", "L", "I"], ["A", "S", "P", "I"]];
const LENGTHS_MM = [1, 2, 5, 10, 20, 50, 100, 200];
const POSITIVE = "#4ade80", NEGATIVE = "#fb7185";
const GAP = 10; // pixels that the crosshair leaves open
const REACH = 2; // slices from which a click is still hinted at

export function drawInk(canvas, viewer, clicks, pending) {
  const ratio = viewer.pixelRatio;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== width * ratio || canvas.height !== height * ratio) {
    canvas.width = width * ratio;
    canvas.height = height * ratio;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (!viewer.grid) return;
  viewer.tiles.forEach((tile, number) => drawFrame(pen, tile, number === 0));
  for (const click of clicks) drawClick(pen, viewer, click);
  if (pending) drawClick(pen, viewer, pending, true);
}

function drawFrame(pen, tile, large) {
  const { left, top, width, height } = tile;
  if (tile.cross) drawCross(pen, tile);
  pen.font = `${large ? 13 : 11}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const [l, t, r, b] = LETTERS[tile.view];
  write(pen, l, left + 8, top + height / 2, "left");
  write(pen, r, left + width - 8, top + height / 2, "right");
  write(pen, t, left + width / 2, top + 10, "center");
  write(pen, b, left + width / 2, top + height - 10, "center");
  write(pen, `${NAMES[tile.view]} ${tile.slice}/${tile.slices}`, left + 8, top + 12, "left");
  if (large) drawScale(pen, tile);
}

function drawCross(pen, { left, top, width, height, cross: [x, y] }) {
  const lines = `M${left} ${y}H${x - GAP}M${x + GAP} ${y}H${left + width}` +
    `M${x} ${top}V${y - GAP}M${x} ${y + GAP}V${top + height}`;
  pen.save();
  pen.beginPath();
  pen.rect(left, top, width, height);
  pen.clip();
  pen.strokeStyle = "rgb(125 190 255 / 55%)";
  pen.lineWidth = 1;
  pen.stroke(new Path2D(lines));
  pen.restore();
}

function drawScale(pen, { left, top, height, width, pixelsPerMm }) {
  const fits = LENGTHS_MM.filter((mm) => mm * pixelsPerMm <= width / 4);
  const mm = fits.at(-1) ?? LENGTHS_MM[0];
  const [x, y, length] = [left + 12, top + height - 14, mm * pixelsPerMm];
  const path = new Path2D(`M${x} ${y - 4}v4h${length}v-4`);
  pen.strokeStyle = "rgb(0 0 0 / 70%)";
  pen.lineWidth = 4;
  pen.stroke(path);
  pen.strokeStyle = "#e6edf3";
  pen.lineWidth = 1.5;
  pen.stroke(path);
  write(pen, mm < 10 ? `${mm} mm` : `${mm / 10} cm`, x + length + 8, y - 2, "left");
}

function drawClick(pen, viewer, { ijk, positive }, pending = false) {
  for (const { at, away } of viewer.placesOf(ijk, REACH)) {
    const [x, y] = at;
    pen.globalAlpha = away === 0 ? 1 : 0.35;
    pen.beginPath();
    pen.arc(x, y, away === 0 ? 6 : 4, 0, 2 * Math.PI);
    pen.fillStyle = pending ? "rgb(0 0 0 / 40%)" : positive ? POSITIVE : NEGATIVE;
    pen.strokeStyle = pending ? (positive ? POSITIVE : NEGATIVE) : "rgb(0 0 0 / 80%)";
    pen.lineWidth = pending ? 2 : 1.5;
    pen.fill();
    pen.stroke();
    if (away === 0) {
      pen.strokeStyle = pending ? "#fff" : "#06210f";
      pen.lineWidth = 1.8;
      pen.stroke(new Path2D(`M${x - 3} ${y}h6${positive ? `M${x} ${y - 3}v6` : ""}`));
    }
  }
  pen.globalAlpha = 1;
}

function write(pen, text, x, y, align) {
  pen.textAlign = align;
  pen.strokeStyle = "rgb(0 0 0 / 70%)";
  pen.lineWidth = 3;
  pen.lineJoin = "round";
  pen.strokeText(text, x, y);
  pen.fillStyle = "#c9d7e3";
  pen.fillText(text, x, y);
}
