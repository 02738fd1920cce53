// A session that the server closed, or lost when it was started anew, is made again from what the
// page knows of it: the same clicks, and so the same masks.

// `ask` sends a request to the new session and shows its reply.
export async function restore(objects, own, ask) {
  if (objects.some((object) => object.began_with_mask)) {
    throw new Error("the session was closed; continue your mask again to go on");
  }
  let first = true;
  for (const { name, threshold, clicks } of objects) {
    if (!clicks.length) continue;
    const number = first ? 1 : (await ask("POST", "objects")).state.active;
    first = false;
    for (const { ijk, positive } of clicks) await ask("POST", "clicks", { ijk, positive });
    if (threshold !== own) await ask("PUT", "threshold", { threshold });
    await ask("PUT", `objects/${number}`, { name });
  }
}
