// The panel at the side: objects, clicks, and what can be done with them. It shows the server's
// state, and keeps nothing but colours and whether clicks are shown.

const PALETTE = [
  "#f5a524", "#38bdf8", "#a78bfa", "#34d399", "#f472b6", "#facc15",
  "#fb7185", "#60a5fa", "#4ade80", "#e879f9", "#2dd4bf", "#f97316",
];
const chosen = new Map(); // object's number -> colour

export const find = (id) => document.getElementById(id);

export function make(tag, values = {}, ...children) {
  const { data, ...rest } = values;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

export const colourOf = (number) => chosen.get(number) ?? PALETTE[(number - 1) % PALETTE.length];

export const forgetColours = () => chosen.clear();

let rebuilding = false; // the list of objects, which takes the focus away

export function showState(state, act) {
  const active = state.objects.find((object) => object.number === state.active);
  const rows = state.objects.map((object) => objectRow(object, object === active, act));
  rebuilding = true;
  find("objects").replaceChildren(...rows);
  rebuilding = false;
  const chips = active.clicks.map((click, number) => clickChip(click, number, act));
  find("clicks").replaceChildren(...chips);
  if (!active.clicks.length) {
    const text = active.began_with_mask ? "Click to correct the mask." : "Click on the object.";
    find("clicks").append(make("li", { className: "small", textContent: text }));
  }
  find("undo").disabled = !state.can_undo;
  find("redo").disabled = !state.can_redo;
  find("reset").disabled = !active.clicks.length;
  find("next").disabled = !active.voxels;
  find("save-mask").disabled = !state.objects.some((object) => object.voxels);
  find("save-clicks").disabled = !state.objects.some((object) => object.clicks.length);
  find("threshold").value = active.threshold;
  showThreshold(active.threshold);
}

export function showThreshold(value) {
  const own = Number(find("threshold").dataset.own);
  find("threshold-value").textContent = Number(value).toFixed(2);
  find("threshold-note").hidden = Math.abs(value - own) < 1e-6;
}

export function enable(on) {
  const controls = "aside button, aside input, #views button, #windows button";
  for (const control of document.querySelectorAll(controls)) {
    control.disabled = !on;
  }
}

function objectRow(object, active, act) {
  const colour = make("input", { type: "color", value: colourOf(object.number), title: "Colour" });
  colour.oninput = () => {
    chosen.set(object.number, colour.value);
    act.recolour();
  };
  const name = make("input", { value: object.name, maxLength: 60, title: "Name", className: "name" });
  // Not before it is left: a reply makes the list anew, and what is typed would go elsewhere.
  name.onblur = () => {
    if (rebuilding) return;
    if (name.value !== object.name) act.rename(object.number, name.value);
    if (!active) act.activate(object.number);
  };
  // A handler that returned false would keep the browser from typing, and from opening the colours.
  name.onkeydown = (event) => {
    if (event.key === "Enter") name.blur();
  };
  const ml = make("output", { textContent: `${shown(object.ml)} ml`, title: `${object.voxels} voxels` });
  const remove = make("button", { textContent: "×", title: "Remove this object", className: "quiet" });
  remove.onclick = (event) => {
    event.stopPropagation();
    act.removeObject(object);
  };
  const row = make("li", { className: active ? "active" : "" }, colour, name, ml, remove);
  row.onclick = (event) => {
    if (event.target === row && !active) act.activate(object.number);
  };
  return row;
}

function clickChip(click, number, act) {
  const what = click.positive ? "adds" : "takes away";
  const go = make("button", {
    textContent: `${click.positive ? "+" : "−"}${number + 1}`,
    title: `Click ${number + 1} ${what} at ${click.ijk.join(", ")}; go there`,
    className: click.positive ? "positive" : "negative",
  });
  go.onclick = () => act.goTo(click.ijk);
  const remove = make("button", { textContent: "×", title: `Remove click ${number + 1}` });
  remove.onclick = () => act.removeClick(number);
  return make("li", { className: "chip" }, go, remove);
}

function shown(ml) {
  return ml >= 100 ? ml.toFixed(0) : ml >= 10 ? ml.toFixed(1) : ml.toFixed(2);
}
