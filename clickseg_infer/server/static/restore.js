// A session that the server closed, or lost when it was started anew, is made again from what the
// page knows of it: the same objects and clicks, and so the same masks.

import { call } from "./api.js";

export function checkRestorable(objects) {
  if (objects.some((object) => object.began_with_mask)) {
    throw new Error("the session was closed; continue your mask again to go on");
  }
}

// Puts the objects of the state `old` into the session `next`; the state that it then has.
export async function restore(next, old) {
  const path = `sessions/${next.session}/objects`;
  for (const { number, name, threshold, clicks } of old.objects) {
    await call("PUT", `${path}/${number}/clicks`, { name, threshold, clicks });
  }
  const kept = new Set(old.objects.map((object) => object.number));
  for (const { number } of next.objects) {
    if (!kept.has(number)) await call("DELETE", `${path}/${number}`);
  }
  return (await call("PUT", `${path}/${old.active}`, { active: true })).state;
}
