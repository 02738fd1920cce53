// Mouse, pen and fingers on the slices. A press that does not move is a click; one that moves
// windows, or pans with Shift, the middle button or two fingers. A single finger pages, as there is
// no wheel, or windows where that was chosen. The wheel pages, with Ctrl it zooms.

const STILL = 4; // pixels that a hand moves while it clicks
const FINGER_STILL = 8;
const PER_SLICE = [3, 16]; // pixels that a finger moves from slice to slice, at least and at most
const WHEEL_STEP = 40; // of a touchpad's many small steps

export function listen(stage, viewer, on) {
  const down = new Map(); // pointers that are pressed, by id
  let moved = false, rolled = 0;
  const placeOf = (event) => {
    const frame = stage.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.target.tagName !== "CANVAS" || !viewer.grid) return;
    stage.setPointerCapture(event.pointerId);
    moved = down.size > 0; // a second finger never clicks
    const at = placeOf(event), finger = event.pointerType === "touch";
    down.set(event.pointerId, { at, first: at, button: event.button, finger, rest: 0 });
  });

  stage.addEventListener("pointermove", (event) => {
    const at = placeOf(event), press = down.get(event.pointerId);
    on.hover(at);
    if (!press) return;
    const still = press.finger ? FINGER_STILL : STILL;
    if (!moved && Math.hypot(at[0] - press.first[0], at[1] - press.first[1]) <= still) return;
    moved = true;
    if (down.size === 2) pinch(viewer, down, event.pointerId, at);
    else if (down.size === 1) drag(viewer, on, press, at, event.shiftKey);
    press.at = at;
  });

  stage.addEventListener("pointerup", (event) => {
    const press = down.get(event.pointerId);
    down.delete(event.pointerId);
    if (!press || moved) return;
    const place = viewer.pick(...press.first);
    if (!place?.inside) return;
    if (press.button === 1 || event.ctrlKey || event.metaKey || event.shiftKey) on.look(place);
    else on.click(place, press.button === 2 || event.altKey);
  });

  stage.addEventListener("pointercancel", (event) => down.delete(event.pointerId));
  stage.addEventListener("pointerleave", () => on.hover(null));
  stage.addEventListener("contextmenu", (event) => event.preventDefault());

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const place = viewer.pick(...placeOf(event));
    if (!place) return;
    if (event.ctrlKey) return viewer.zoom(Math.exp(-event.deltaY / 400), place);
    rolled += event.deltaMode === 0 ? event.deltaY : Math.sign(event.deltaY) * WHEEL_STEP;
    const steps = Math.trunc(rolled / WHEEL_STEP);
    rolled -= steps * WHEEL_STEP;
    // A mouse's notch is one slice, however many pixels the browser makes of it.
    // Down is towards the feet, the back, or the left.
    if (steps) viewer.page(place.view, -(Math.abs(event.deltaY) >= 100 ? Math.sign(steps) : steps));
  }, { passive: false });
}

function drag(viewer, on, press, at, shift) {
  const [dx, dy] = [at[0] - press.at[0], at[1] - press.at[1]];
  if (press.button === 1 || shift) {
    const [from, to] = [viewer.pick(...press.at), viewer.pick(...at)];
    if (from && to && from.tile === to.tile) viewer.pan(from, to);
  } else if (press.finger && !on.fingerWindows()) {
    leaf(viewer, press, dy);
  } else {
    on.window(dx, dy);
  }
}

// Page through the view that the finger came down on: as by the wheel, down is towards the feet.
function leaf(viewer, press, dy) {
  const view = viewer.pick(...press.first)?.view;
  const tile = viewer.tiles.find((each) => each.view === view);
  if (!tile) return;
  const [least, most] = PER_SLICE;
  const pace = Math.min(Math.max(tile.height / tile.slices, least), most);
  press.rest += dy / pace;
  const slices = Math.trunc(press.rest);
  press.rest -= slices;
  if (slices) viewer.page(view, -slices);
}

function pinch(viewer, down, moving, at) {
  const [still] = [...down].filter(([id]) => id !== moving).map(([, press]) => press.at);
  const before = down.get(moving).at;
  const spread = (a) => Math.hypot(a[0] - still[0], a[1] - still[1]);
  const middle = (a) => [(a[0] + still[0]) / 2, (a[1] + still[1]) / 2];
  const [from, to] = [viewer.pick(...middle(before)), viewer.pick(...middle(at))];
  if (!from || !to || from.tile !== to.tile) return;
  viewer.pan(from, to);
  const place = viewer.pick(...middle(at));
  if (place) viewer.zoom(spread(at) / Math.max(spread(before), 1), place, true);
}
