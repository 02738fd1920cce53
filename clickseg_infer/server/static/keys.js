// The keyboard: what each key does, and the help that says so.

const MOUSE = [
  ["Click", "adds to the object; right click or Alt click takes away"],
  ["Wheel", "pages through the view under the pointer; with Ctrl it zooms"],
  ["Drag", "sideways for the window's width, up and down for its level"],
  ["Shift drag", "moves the picture; so does the middle button"],
  ["Shift click", "looks at a place in all three views, without a click on it"],
  ["Tap", "clicks"],
  ["One finger", "up and down pages through the view; it sets the window once Finger windows is on"],
  ["Two fingers", "zoom and move the picture"],
];

// [key as people read it, what `event` must be, what it does, action]
export function bindings(act) {
  return [
    ["Page Up, ↑", ["PageUp", "ArrowUp"], "next slice; with Shift ten", (e) => act.page(e.shiftKey ? 10 : 1)],
    ["Page Down, ↓", ["PageDown", "ArrowDown"], "slice before; with Shift ten", (e) => act.page(e.shiftKey ? -10 : -1)],
    ["← →", ["ArrowLeft"], "slice before, next slice", () => act.page(-1)],
    [null, ["ArrowRight"], null, () => act.page(1)],
    ["1 2 3", ["1"], "axial, coronal or sagittal large", () => act.view(0)],
    [null, ["2"], null, () => act.view(1)],
    [null, ["3"], null, () => act.view(2)],
    ["4", ["4"], "this view alone, or all three", act.single],
    ["W", ["w"], "next window", act.nextWindow],
    ["+ − 0", ["+", "="], "zoom in, out, fit", () => act.zoom(1.25)],
    [null, ["-"], null, () => act.zoom(0.8)],
    [null, ["0"], null, act.fit],
    ["Ctrl Z", ["ctrl+z"], "undo", act.undo],
    ["Ctrl Shift Z", ["ctrl+shift+z", "ctrl+y"], "redo", act.redo],
    ["X", ["x"], "let clicks add, or take away", act.swap],
    ["N", ["n", "Enter"], "finish the object, begin the next", act.next],
    ["H", ["h"], "show or hide the clicks", act.markers],
    ["M", ["m"], "show or hide the masks", act.masks],
    ["O", ["o"], "open a scan", act.open],
    ["S", ["s"], "save the mask; with Shift the clicks", act.saveMask],
    [null, ["shift+s"], null, act.saveClicks],
    ["?", ["?"], "this help", act.help],
  ];
}

export function listenToKeys(act) {
  const table = new Map();
  for (const [, keys, , action] of bindings(act)) for (const key of keys) table.set(key, action);
  addEventListener("keydown", (event) => {
    if (event.target.matches("input:not([type=range]), select, dialog *") || event.altKey) return;
    if (event.target.matches("input") && /^(Arrow|Page)/.test(event.key)) return; // a slider's own
    const action = table.get(nameOf(event)) ?? (event.ctrlKey || event.metaKey ? null : table.get(event.key));
    if (!action || (event.target.matches("button") && event.key === "Enter")) return;
    event.preventDefault();
    action(event);
  });
}

function nameOf(event) {
  const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const ctrl = event.ctrlKey || event.metaKey ? "ctrl+" : "";
  const shift = event.shiftKey && /^[a-z]$/.test(letter) ? "shift+" : "";
  return ctrl + shift + letter;
}

export function fillHelp(dialog, act) {
  const keyboard = bindings(act).filter(([keys]) => keys).map(([keys, , what]) => [keys, what]);
  const rows = [...MOUSE, ...keyboard];
  const list = document.createElement("dl");
  for (const [keys, what] of rows) {
    list.append(Object.assign(document.createElement("dt"), { textContent: keys }));
    list.append(Object.assign(document.createElement("dd"), { textContent: what }));
  }
  const close = Object.assign(document.createElement("button"), { textContent: "Close" });
  close.onclick = () => dialog.close();
  dialog.replaceChildren(
    Object.assign(document.createElement("h2"), { textContent: "Mouse and keyboard" }), list, close);
}
