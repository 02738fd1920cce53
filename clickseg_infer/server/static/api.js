// The server, from the page's side. Every answer is plain JSON; what was refused is an Error whose
// message is the server's one line.

const TOKEN = "clickseg-token";

// The token comes behind the # of the address that the server printed; it stays in this tab.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(TOKEN, given);
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem(TOKEN);
const headers = token ? { Authorization: `Bearer ${token}` } : {};

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function call(method, path, body, options = {}) {
  const request = { method, headers: { ...headers }, ...options };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  const response = await reach(() => fetch(`/api/${path}`, request));
  if (!response.ok) throw new Refused(response.status, detailOf(await response.text()));
  return response.status === 204 ? null : response.json();
}

// The bytes at a path; `progress` hears what fraction has come.
export async function download(path, progress = () => {}) {
  const response = await reach(() => fetch(`/api/${path}`, { headers }));
  if (!response.ok) throw new Refused(response.status, detailOf(await response.text()));
  const whole = Number(response.headers.get("Content-Length")) || 0;
  const parts = [];
  let come = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    come += value.length;
    if (whole) progress(come / whole);
  }
  const name = /filename=(\S+)/.exec(response.headers.get("Content-Disposition") ?? "");
  return { blob: new Blob(parts), name: name ? decodeURIComponent(name[1]) : "" };
}

// Only XMLHttpRequest says how far an upload is.
export function upload(path, file, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/${path}?name=${encodeURIComponent(file.name)}`);
    if (token) request.setRequestHeader("Authorization", headers.Authorization);
    request.upload.onprogress = (event) => progress(event.loaded / event.total);
    request.onerror = () => reject(new Refused(0, "the server cannot be reached"));
    request.onload = () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(new Refused(request.status, detailOf(request.responseText)));
    };
    request.send(file);
  });
}

async function reach(ask) {
  try {
    return await ask();
  } catch {
    throw new Refused(0, "the server cannot be reached");
  }
}

function detailOf(text) {
  try {
    return String(JSON.parse(text).detail);
  } catch {
    return text.slice(0, 200);
  }
}
