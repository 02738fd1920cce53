// The page: what the hand does goes to the server, one thing after the other, and what comes back
// is shown. The server knows the clicks and the masks; the page knows what is on the screen.

import { call, download, upload } from "./api.js";
import { listenToChoices, listenToDrops } from "./files.js";
import { drawInk } from "./ink.js";
import { fillHelp, listenToKeys } from "./keys.js";
import { colourOf, enable, find, forgetColours, make, showState, showThreshold } from "./panel.js";
import { listen } from "./pointer.js";
import { checkRestorable, restore } from "./restore.js";
import { tarOf } from "./tar.js";
import { Viewer } from "./viewer.js";

const WINDOWS = { soft: [40, 400], lung: [-600, 1500], bone: [400, 1800], liver: [80, 150] };
const SIGN_OF_LIFE_MS = 5 * 60 * 1000;
const MESSAGE_MS = 6000;

let state = null; // the server's, of the open session
let opened = null; // how it was opened, to open it again
let positive = true, markers = true, masks = true, windowName = "soft";
let pending = null; // a click that has not been answered
let queue = Promise.resolve();
let pointerAt = null; // on the stage
let scans = 0; // that have been opened
let missed = false; // a reply, so that the labels on the screen may be wrong
let fingerWindows = false;
let savedAt = 0; // of the server's count of actions

const ink = find("ink");
const viewer = new Viewer(find("slices"), () => {
  const active = state?.objects.find((object) => object.number === state.active);
  drawInk(ink, viewer, markers && active ? active.clicks : [], pending);
  showPointer();
});
// For tests and the curious.
globalThis.clickseg = { viewer, get state() { return state; }, idle: () => queue };

function limitsOf(name) {
  const [level, width] = WINDOWS[name];
  return [level - width / 2, level + width / 2];
}

const act = {
  page: (slices) => viewer.grid && viewer.page(viewer.large, slices),
  goTo: (ijk) => viewer.goToFile(ijk),
  view(view) {
    viewer.large = view;
    viewer.arrange();
    press("views", (button) => Number(button.dataset.view) === view);
  },
  single() {
    viewer.single = !viewer.single;
    viewer.arrange();
    find("single").setAttribute("aria-pressed", viewer.single);
  },
  zoom(factor) {
    const tile = viewer.grid && viewer.tiles[0];
    const middle = tile && viewer.pick(tile.left + tile.width / 2, tile.top + tile.height / 2);
    if (middle) viewer.zoom(factor, middle);
  },
  fit: () => viewer.fit(),
  nextWindow() {
    const names = Object.keys(WINDOWS);
    act.preset(names[(names.indexOf(windowName) + 1) % names.length]);
  },
  preset(name) {
    if (!viewer.grid) return;
    windowName = name;
    viewer.window = limitsOf(name);
    press("windows", (button) => button.dataset.window === name);
  },
  finger() {
    fingerWindows = !fingerWindows;
    find("finger").setAttribute("aria-pressed", fingerWindows);
  },
  swap() {
    positive = !positive;
    press("mode", (button) => Boolean(button.dataset.positive) === positive);
  },
  markers() {
    markers = !markers;
    find("markers").textContent = markers ? "shown" : "hidden";
    find("markers").setAttribute("aria-pressed", markers);
    viewer.nv.drawScene();
  },
  masks() {
    masks = !masks;
    viewer.opacity = masks ? Number(find("opacity").value) : 0;
  },
  help: () => (find("help-dialog").open ? find("help-dialog").close() : find("help-dialog").showModal()),
  open: () => find("scan-file").click(),
  openFolder: () => find("scan-folder").click(),

  click(place, negative) {
    const click = { ijk: place.ijk, positive: positive !== negative };
    pending = click;
    viewer.goTo(place.xyz);
    const began = performance.now();
    return change("POST", "clicks", click, (ms) => showTimes(ms.total, performance.now() - began));
  },
  undo: () => state?.can_undo && change("POST", "undo"),
  redo: () => state?.can_redo && change("POST", "redo"),
  reset: () => change("POST", "reset"),
  removeClick: (number) => change("DELETE", `clicks/${number}`),
  next: () => !find("next").disabled && change("POST", "objects"),
  activate: (number) => change("PUT", `objects/${number}`, { active: true }),
  rename: (number, name) => change("PUT", `objects/${number}`, { name }),
  removeObject(object) {
    if (object.voxels && !confirm(`Remove ${object.name} and its clicks?`)) return;
    change("DELETE", `objects/${object.number}`);
  },
  recolour: () => viewer.colour(state.objects.map(({ number }) => [number, colourOf(number)])),
  saveMask: () => !find("save-mask").disabled && save("mask"),
  saveClicks: () => !find("save-clicks").disabled && save("clicks"),
};

// One thing after the other: what is asked for waits until what came before is on the screen.
function inTurn(work) {
  queue = queue.then(work).catch((error) => {
    pending = null;
    tell(error.message);
    if (viewer.grid) viewer.nv.drawScene();
  });
  return queue;
}

// The same for work on the scan that is open now: it is dropped if another one is by then, and
// done once more if the session had been lost.
function onThisScan(work) {
  const mine = scans;
  return inTurn(async () => {
    if (!state || mine !== scans) {
      pending = null;
      return;
    }
    try {
      await work();
    } catch (error) {
      if (error.status !== 404 || !error.message.startsWith("this session")) throw error;
      await openAgain();
      tell("The session had been closed; it is opened again.", false);
      await work();
    }
  });
}

function change(method, what, body, after) {
  return onThisScan(() => ask(method, what, body, after));
}

async function ask(method, what, body, after = () => {}) {
  const reply = await answer(() => call(method, `sessions/${state.session}/${what}`, body));
  after(reply.ms);
}

// Show what the server answers. A reply that got lost may have changed labels all the same.
async function answer(asking) {
  if (missed) await catchUp();
  try {
    const reply = await asking();
    const next = reply.state.actions === state.actions + 1;
    await show(reply);
    if (!next) await catchUp();
    return reply;
  } catch (error) {
    if (error.status >= 400 && error.status < 500) throw error; // refused: nothing has changed
    missed = true;
    await catchUp().catch(() => {}); // or before the next thing that is asked for
    throw error;
  }
}

// Have all labels anew.
async function catchUp() {
  const reply = await call("GET", `sessions/${state.session}/labels`);
  viewer.wipe();
  await show(reply);
  missed = false;
}

async function show(reply) {
  state = reply.state;
  pending = null;
  act.recolour();
  if (reply.changed) await viewer.patch(reply.changed);
  showState(state, act);
}

const unsaved = () =>
  state && state.actions !== savedAt && state.objects.some((object) => object.voxels || object.clicks.length);

function openScan(asking, name) {
  if (unsaved() && !confirm("Open another scan? What is marked on this one has not been saved.")) {
    showWhichIsOpen();
    return queue;
  }
  return inTurn(async () => {
    await open(asking, name);
    scans += 1;
    savedAt = state.actions;
    forgetColours();
    act.recolour();
    showState(state, act);
  });
}

// None of the list if the scan came from a file.
function showWhichIsOpen() {
  find("scans").value = state && opened.listed ? state.scan : "";
}

const close = (session) => call("DELETE", `sessions/${session}`).catch(() => {});

// The scan that is open stays so until the next one is on the screen.
async function open(asking, name, prepare = (next) => next) {
  enable(false);
  const old = state;
  let next = null;
  try {
    busy(`Opening ${name}`);
    next = await asking();
    const prepared = await prepare(next);
    busy(`Loading ${name}`, 0);
    const loading = (done) => busy(`Loading ${name}`, done);
    const { blob } = await download(`sessions/${next.session}/scan`, loading);
    busy(`Showing ${name}`);
    missed = Boolean(old); // should the viewer give the old scan back, it is without labels
    await viewer.show(blob, limitsOf(windowName), next.affine);
    missed = false;
    state = prepared;
    opened = { asking, name, listed: asking.listed };
    pointerAt = null;
    next = null;
    if (old) await close(old.session);
    find("scan-name").textContent = state.scan;
    document.title = `${state.scan} · clickseg`;
    find("welcome").hidden = true;
    find("times").textContent = "";
    press("windows", (button) => button.dataset.window === windowName);
    act.recolour();
  } catch (error) {
    if (next) await close(next.session);
    if (missed) await catchUp().catch(() => {});
    throw error;
  } finally {
    busy(null);
    enable(Boolean(state));
    showWhichIsOpen();
    if (state) showState(state, act);
    else find("welcome").hidden = false;
  }
}

async function openAgain() {
  const old = state, here = viewer.position;
  checkRestorable(old.objects);
  await open(opened.asking, opened.name, (next) => restore(next, old));
  viewer.goTo(here);
  await catchUp();
}

function openListed(name) {
  const asking = () => call("POST", "sessions", { scan: name });
  return openScan(Object.assign(asking, { listed: true }), name);
}

// A NIfTI file, or else the files of a DICOM series.
function openFiles(files, name) {
  const nifti = files.length === 1 && /\.nii(\.gz)?$/i.test(files[0].name);
  const [path, file] = nifti ? ["upload", files[0]] : ["series/upload", tarOf(files, name)];
  const sending = (done) => busy(`Sending ${file.name}`, done);
  openScan(() => upload(`sessions/${path}`, file, sending), file.name);
}

function openMask(file) {
  const work = state.objects.some((object) => object.clicks.length);
  if (work && !confirm("Begin anew with this mask? The objects and clicks that are here go.")) return;
  onThisScan(async () => {
    const sending = (done) => busy(`Sending ${file.name}`, done);
    try {
      await answer(() => upload(`sessions/${state.session}/mask/upload`, file, sending));
    } finally {
      busy(null);
    }
  });
}

function save(what) {
  return onThisScan(async () => {
    const { blob, name } = await download(`sessions/${state.session}/${what}`);
    const link = make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    savedAt = state.actions;
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    tell(`Saved ${name}`, false);
  });
}

function busy(text, done) {
  find("progress").hidden = text === null;
  find("progress-text").textContent = text ?? "";
  const bar = find("progress").querySelector("progress");
  if (done === undefined || done >= 1) bar.removeAttribute("value");
  else bar.value = done;
}

let hiding = 0;
function tell(text, wrong = true) {
  const message = find("message");
  message.textContent = text;
  message.className = wrong ? "wrong" : "";
  message.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { message.hidden = true; }, MESSAGE_MS);
}

function showTimes(server, whole) {
  const p50 = state.p50_ms.toFixed(0);
  find("times").replaceChildren(
    make("b", { textContent: `${server.toFixed(0)} ms` }),
    ` server · median ${p50} ms · on screen after ${whole.toFixed(0)} ms${refined()}`);
}

// How the mask came to obey its clicks, where it did not by itself.
function refined() {
  const { patches = 0, corrected = 0 } = state.refinement ?? {};
  const ways = [...(patches ? ["tuned"] : []), ...(corrected ? [`${corrected} by a ball`] : [])];
  return ways.length ? ` · obeyed: ${ways.join(", ")}` : "";
}

function showPointer() {
  if (!viewer.grid) return;
  const [low, high] = viewer.window;
  const hovered = pointerAt && viewer.pick(...pointerAt); // the slice may be another one by now
  const shown = [`window ${Math.round((low + high) / 2)} / ${Math.round(high - low)}`];
  if (hovered?.inside) {
    const hu = `${Math.round(viewer.valueAt(hovered.ijk))} HU`;
    shown.unshift(make("b", { textContent: hu }), ` at ${hovered.ijk.join(", ")} · `);
  }
  find("pointer").replaceChildren(...shown);
}

function press(group, isPressed) {
  for (const button of find(group).querySelectorAll("button:not(#single, #finger)")) {
    button.setAttribute("aria-pressed", isPressed(button));
  }
}

let windowing = null;
function dragWindow(dx, dy) {
  const [low, high] = windowing ?? viewer.window;
  const width = Math.max(high - low, 1), pace = Math.max(width / 300, 0.5);
  const wider = Math.max(width + dx * pace, 1), level = (low + high) / 2 + dy * pace;
  if (!windowing) {
    requestAnimationFrame(() => {
      viewer.window = windowing;
      windowing = null;
    });
  }
  windowing = [level - wider / 2, level + wider / 2];
  press("windows", () => false);
}

function wire() {
  for (const button of document.querySelectorAll("[data-view]")) {
    button.onclick = () => act.view(Number(button.dataset.view));
  }
  for (const button of document.querySelectorAll("[data-window]")) {
    button.onclick = () => act.preset(button.dataset.window);
  }
  for (const button of document.querySelectorAll("[data-positive]")) {
    button.onclick = () => Boolean(button.dataset.positive) !== positive && act.swap();
  }
  const does = {
    single: act.single, finger: act.finger, open: act.open, "welcome-open": act.open, help: act.help, undo: act.undo,
    folder: act.openFolder, "welcome-folder": act.openFolder,
    redo: act.redo, reset: act.reset, next: act.next, markers: act.markers,
    "save-mask": act.saveMask, "save-clicks": act.saveClicks, "load-mask": () => find("mask-file").click(),
  };
  for (const [id, action] of Object.entries(does)) find(id).onclick = () => action();
  find("opacity").oninput = () => {
    masks = true;
    find("opacity-value").textContent = Number(find("opacity").value).toFixed(2);
    viewer.opacity = Number(find("opacity").value);
  };
  for (const slider of document.querySelectorAll("input[type=range]")) {
    slider.addEventListener("pointerup", () => slider.blur()); // the arrow keys page again
  }
  find("threshold").oninput = () => showThreshold(find("threshold").value);
  find("threshold").onchange = () =>
    change("PUT", "threshold", { threshold: Number(find("threshold").value) });
  listenToChoices("scan-file", openFiles);
  listenToChoices("scan-folder", openFiles);
  listenToChoices("mask-file", ([file]) => openMask(file));
  listenToDrops(find("stage"), openFiles);
  find("scans").onchange = () => {
    find("scans").blur(); // the arrow keys page again
    openListed(find("scans").value);
  };
}

async function begin() {
  wire();
  enable(false);
  act.view(0);
  press("mode", (button) => Boolean(button.dataset.positive) === positive);
  find("opacity").oninput();
  fillHelp(find("help-dialog"), act);
  listenToKeys(act);
  listen(find("stage"), viewer, {
    click: act.click,
    look: (place) => viewer.goTo(place.xyz),
    window: dragWindow,
    fingerWindows: () => fingerWindows,
    hover(at) {
      pointerAt = at;
      showPointer();
    },
  });
  await viewer.attach();
  const about = await call("GET", "about");
  find("engine").textContent = `${about.model} · ${about.engine} ${about.precision}`;
  find("threshold").dataset.own = about.threshold;
  const options = about.scans.map((name) => make("option", { value: name, textContent: name }));
  find("scans").replaceChildren(...options);
  find("scans").hidden = about.scans.length < 2;
  if (about.scans.length) await openListed(about.scans[0]);
  else find("welcome").hidden = false;
}

setInterval(() => {
  if (state && !document.hidden) call("GET", `sessions/${state.session}`).catch(() => {});
}, SIGN_OF_LIFE_MS);
addEventListener("beforeunload", (event) => unsaved() && event.preventDefault());
addEventListener("pagehide", () => {
  if (!state) return;
  call("DELETE", `sessions/${state.session}`, undefined, { keepalive: true }).catch(() => {});
});
addEventListener("pageshow", (event) => event.persisted && location.reload());

begin().catch((error) => tell(error.message));
