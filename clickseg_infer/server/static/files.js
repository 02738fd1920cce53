// Files from this computer: chosen in a dialog, or dropped, folders with all that is in them.

import { find } from "./panel.js";

// `take` gets the files and the name of the folder that they come from.
export function listenToChoices(id, take) {
  find(id).onchange = () => {
    const files = Array.from(find(id).files);
    const folder = files[0]?.webkitRelativePath.split("/")[0];
    find(id).value = "";
    if (files.length) take(files, folder || "series");
  };
}

export function listenToDrops(stage, take) {
  addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || stage.classList.remove("dropping"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    stage.classList.remove("dropping");
    const { files, name } = await filesOf(event.dataTransfer.items);
    if (files.length) take(files, name);
  });
}

// All files of what was dropped. The list is empty once the event is over, so it is read at once.
async function filesOf(items) {
  const entries = [], files = [];
  for (const item of items) {
    const entry = item.webkitGetAsEntry();
    if (entry) entries.push(entry);
    else if (item.kind === "file") files.push(item.getAsFile());
  }
  const visit = async (entry) => {
    if (entry.isFile) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else for (const child of await childrenOf(entry.createReader())) await visit(child);
  };
  for (const entry of entries) await visit(entry);
  return { files, name: entries[0]?.name ?? "series" };
}

async function childrenOf(reader) {
  const all = [];
  for (;;) { // a reader gives a hundred at a time, and at the end none
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return all;
    all.push(...some);
  }
}
