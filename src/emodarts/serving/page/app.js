// The page: asks the server, and wires what is drawn (view.js) to what sounds (sound.js).
import { outline, record } from "./sound.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") ?? "";
let limits = { upload: Infinity, seconds: Infinity };
let recording = null;
let shown = null; // the result on the page: answer, parts, peaks, seconds

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer.");
  }
  const value = await response.json().catch(() => ({}));
  if (response.status === 401) $("door").hidden = false;
  if (!response.ok) throw new Error(view.capital(value.error ?? `status ${response.status}`));
  return value;
}

async function start() {
  try {
    const [model, accepted] = await Promise.all([ask("/v1/model"), ask("/v1/limits")]);
    $("door").hidden = true;
    limits = accepted;
    view.setClasses(model.classes);
    showModel(model);
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

function showModel(model) {
  const { corpus, ua, n_test: n, recipe } = model.origin;
  $("summary").textContent = model.classes.join(", ");
  view.drawParts($("parts"), model.parts);
  $("cells").hidden = !model.cells;
  if (model.cells) {
    showCells();
    $("cells-text").textContent = model.cells;
  }
  const score = ua === undefined ? "" : ` On ${n} recordings of speakers that it did not know, the mean recall of the classes was ${view.percent(ua)}.`;
  const size = model.parameters ? `${model.parameters.toLocaleString("en")} parameters in all. ` : "";
  const data = corpus ? `Trained on ${corpus}${recipe ? ` by the recipe ${recipe}` : ""}.${score}` : "";
  $("origin").textContent = size + data;
}

async function showCells() {
  // By fetch, as an image cannot send the token.
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch("/v1/model/cells.svg", { headers });
  $("drawing").src = URL.createObjectURL(await response.blob());
}

// Files

async function analyse(blob, name) {
  if (blob.size > limits.upload) {
    return say(`${name} is larger than the ${limits.upload / 1e6} MB that the server accepts.`, true);
  }
  say(`Listening to ${name} …`);
  const size = Number($("window").value);
  const form = new FormData();
  form.append("file", blob, name);
  try {
    const [found, peaks] = await Promise.all([
      ask(`/v1/predict?window=${size}&hop=${size / 2}`, { method: "POST", body: form }),
      outline(blob),
    ]);
    showResult(found, peaks, blob, name);
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

function showResult({ answer, windows }, peaks, blob, name) {
  const seconds = answer.end;
  shown = { answer, parts: view.stretches(windows, seconds), peaks, seconds };
  $("result").hidden = false;
  $("name").textContent = `${name}, ${view.clock(seconds)}`;
  $("answer").textContent = answer.label ? view.capital(answer.label) : "No emotion";
  const share = answer.probabilities[answer.label];
  if (share !== undefined) $("answer").append(view.element("span", view.percent(share)));
  $("note").textContent = [answer.note, peaks ? "" : "This browser cannot draw the waveform of this format."].filter(Boolean).join(" ");
  view.drawTable($("table"), windows);
  $("position").max = seconds;
  URL.revokeObjectURL($("player").src);
  $("player").src = URL.createObjectURL(blob);
  drawTrack();
  showWhole();
  $("answer").focus({ preventScroll: true });
  $("result").scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

const partAt = (seconds) => shown.parts.find((part) => seconds < part.to) ?? shown.parts.at(-1);

function drawTrack() {
  if (!shown) return;
  view.drawRibbon($("ribbon"), shown.parts, shown.seconds);
  $("wave").hidden = !shown.peaks;
  const quiet = getComputedStyle(document.body).getPropertyValue("--quiet");
  if (shown.peaks) {
    view.drawWave($("wave"), shown.peaks, (share) => {
      const { label } = partAt(share * shown.seconds).answer;
      return label ? view.colour(label) : quiet;
    });
  }
}

function showWhole() {
  $("stretch").textContent = "Whole recording";
  $("whole").hidden = true;
  moveCursor(0);
  $("cursor").hidden = true;
  view.drawBars($("bars"), shown.answer);
}

function moveCursor(seconds) {
  $("position").value = seconds;
  $("clock").value = view.clock(seconds);
  $("cursor").hidden = false;
  $("position").setAttribute("aria-valuetext", view.clock(seconds));
  $("cursor").style.left = `${(100 * seconds) / shown.seconds}%`;
}

function showMoment(seconds) {
  moveCursor(seconds);
  const { answer } = partAt(seconds);
  const what = answer.label ? view.capital(answer.label) : "no speech";
  $("stretch").textContent = `${view.clock(answer.start)} – ${view.clock(answer.end)}: ${what}`;
  $("position").setAttribute("aria-valuetext", `${view.clock(seconds)}, ${what}`);
  $("whole").hidden = false;
  view.drawBars($("bars"), answer);
}

function seek(seconds) {
  showMoment(seconds);
  $("player").currentTime = seconds;
}

// Microphone

async function startRecording() {
  if (!navigator.mediaDevices) {
    return say("Browsers give the microphone to https pages and to localhost only. Choose a file, or serve this page by https.", true);
  }
  const peaks = new Float32Array(200);
  let socket = null, samples = 0;
  const draw = () => {
    if (!recording) return;
    view.drawWave($("level"), peaks, () => getComputedStyle(document.body).getPropertyValue("--accent"));
    requestAnimationFrame(draw);
  };
  $("record").disabled = true;
  try {
    recording = await record((chunk, rate) => {
      socket ??= openStream(rate);
      if (socket.readyState === WebSocket.OPEN) {
        for (const waiting of socket.waiting.splice(0)) socket.send(waiting);
        socket.send(chunk);
      } else if (socket.readyState === WebSocket.CONNECTING) socket.waiting.push(chunk);
      peaks.copyWithin(0, 1);
      peaks[peaks.length - 1] = chunk.reduce((most, s) => Math.max(most, Math.abs(s)), 0) / 32768;
      samples += chunk.length;
      say(`Recording, ${view.clock(samples / rate)}`);
      if (samples / rate > limits.seconds - 1) stopRecording();
    });
  } catch (error) {
    return say(error.name === "NotAllowedError" ? "The microphone is blocked. Allow it in the browser, or choose a file." : `The microphone cannot be used: ${error.message}`, true);
  } finally {
    $("record").disabled = false;
    $("record").focus();
  }
  recording.end = () => {
    if (socket?.readyState === WebSocket.OPEN) socket.send("end");
  };
  $("record").classList.add("recording");
  $("record-text").textContent = "Stop";
  $("live").hidden = false;
  view.drawBars($("live-bars"), { label: "", probabilities: {} });
  draw();
}

function openStream(rate) {
  const url = new URL("/v1/stream", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = new URLSearchParams({ sample_rate: rate, window: Math.min(2, $("window").value), hop: 0.5 });
  const socket = new WebSocket(url, token ? ["emodarts", `bearer.${token}`] : ["emodarts"]);
  socket.waiting = [];
  socket.onmessage = ({ data }) => {
    const update = JSON.parse(data);
    if (update.type === "answer") view.drawBars($("live-bars"), update);
  };
  return socket;
}

async function stopRecording() {
  const ended = recording;
  if (!ended) return;
  recording = null;
  $("record").classList.remove("recording");
  $("record-text").textContent = "Record";
  const file = await ended.stop();
  ended.end();
  $("live").hidden = true;
  await analyse(file, "Recording.wav");
}

// Wiring

$("record").onclick = () => (recording ? stopRecording() : startRecording());
$("file").onchange = ({ target }) => {
  if (target.files[0]) analyse(target.files[0], target.files[0].name);
  target.value = "";
};
$("door").onsubmit = (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem("token", token);
  start();
};
$("position").oninput = ({ target }) => seek(Number(target.value));
$("track").onclick = (event) => {
  const box = $("track").getBoundingClientRect();
  seek((shown.seconds * (event.clientX - box.left)) / box.width);
};
$("play").onclick = () => ($("player").paused ? $("player").play() : $("player").pause());
$("player").onplay = $("player").onpause = ({ target }) => {
  $("play").textContent = target.paused ? "Play" : "Pause";
};
$("player").onerror = () => {
  $("play").disabled = true;
};
$("player").onloadedmetadata = () => {
  $("play").disabled = false;
};
$("player").ontimeupdate = ({ target }) => {
  if (shown && !target.paused) showMoment(Math.min(target.currentTime, shown.seconds));
};
$("whole").onclick = () => {
  $("player").pause();
  showWhole();
  $("position").focus();
};
window.addEventListener("resize", drawTrack);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawTrack);
window.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").hidden = false;
});
window.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
window.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  const [file] = event.dataTransfer.files;
  if (file) analyse(file, file.name);
});
start();
