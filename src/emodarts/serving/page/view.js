// What is drawn: bars of probabilities, the waveform with its timeline, tables.

const COLOURS = {
  anger: "#ef7b45", angry: "#ef7b45", happiness: "#f2b632", happy: "#f2b632", joy: "#f2b632",
  excitement: "#f2b632", sadness: "#62abe8", sad: "#62abe8", neutral: "#b3bac3", fear: "#b793dc",
  fearful: "#b793dc", disgust: "#93bd57", surprise: "#ee92c3", surprised: "#ee92c3",
  boredom: "#74c7b8", calm: "#74c7b8",
};
const OTHERS = ["#ef7b45", "#62abe8", "#f2b632", "#93bd57", "#b793dc", "#74c7b8", "#ee92c3", "#b3bac3"];

let classes = [];

export function setClasses(names) {
  classes = names;
}

/** Of a class; another label, such as one for a doubtful answer, is pale. */
export function colour(label) {
  const index = classes.indexOf(label);
  return index < 0 ? "#d9dde2" : (COLOURS[label.toLowerCase()] ?? OTHERS[index % OTHERS.length]);
}

export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export const percent = (share) => `${Math.round(100 * share)}%`;
export const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A row for each class: name, bar, share. Without probabilities the bars are empty. */
export function drawBars(place, answer) {
  const rows = classes.flatMap((name) => {
    const share = answer.probabilities[name] ?? 0;
    const first = name === answer.label ? " first" : "";
    const box = element("div", "", "box");
    const fill = element("div", "", "fill");
    fill.style.width = `${100 * share}%`;
    fill.style.background = colour(name);
    box.append(fill);
    return [
      element("div", capital(name), `name${first}`),
      box,
      element("div", name in answer.probabilities ? percent(share) : "–", `share${first}`),
    ];
  });
  place.replaceChildren(...rows);
}

/** The stretch of time that a window stands for: as far as it is the one whose middle is nearest. */
export function stretches(windows, seconds) {
  const middles = windows.map((w) => (w.start + w.end) / 2);
  return windows.map((w, i) => ({
    answer: w,
    from: i ? (middles[i - 1] + middles[i]) / 2 : 0,
    to: i + 1 < windows.length ? (middles[i] + middles[i + 1]) / 2 : seconds,
  }));
}

/** Neighbouring stretches with the same label, joined. */
function runs(parts) {
  const joined = [];
  for (const part of parts) {
    const last = joined.at(-1);
    if (last && last.label === part.answer.label) last.to = part.to;
    else joined.push({ label: part.answer.label, from: part.from, to: part.to });
  }
  return joined;
}

/** The timeline; a block that is too short for its name has its colour only. */
export function drawRibbon(place, parts, seconds) {
  const blocks = runs(parts).map(({ label, from, to }) => {
    const text = label ? capital(label) : "no speech";
    const fits = ((to - from) / seconds) * place.clientWidth > 9 * text.length + 12;
    const block = element("div", fits ? text : "", label ? "" : "none");
    block.style.left = `${(100 * from) / seconds}%`;
    block.style.width = `${(100 * (to - from)) / seconds}%`;
    if (label) block.style.background = colour(label);
    return block;
  });
  place.replaceChildren(...blocks);
}

/** Peaks in [0, 1] as bars around the middle, in the colour of their time. */
export function drawWave(canvas, peaks, colourAt) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const bars = Math.max(1, Math.floor(width / 4));
  const loudest = Math.max(0.05, ...peaks);
  for (let k = 0; k < bars; k++) {
    const from = Math.floor((k * peaks.length) / bars);
    const to = Math.max(from + 1, Math.floor(((k + 1) * peaks.length) / bars));
    const peak = Math.max(...peaks.subarray(from, to)) / loudest;
    const size = Math.max(2, peak * (height - 12));
    pen.fillStyle = colourAt((k + 0.5) / bars);
    pen.beginPath();
    pen.roundRect(k * 4, (height - size) / 2, 3, size, 1.5);
    pen.fill();
  }
}

export function drawTable(table, windows) {
  const head = element("tr");
  for (const title of ["Time", "Emotion", ...classes.map(capital)]) {
    const cell = element("th", title);
    cell.scope = "col";
    head.append(cell);
  }
  const rows = windows.map((w) => {
    const row = element("tr");
    const shares = classes.map((name) => (name in w.probabilities ? percent(w.probabilities[name]) : ""));
    const cells = [`${clock(w.start)} – ${clock(w.end)}`, w.label ? capital(w.label) : w.note, ...shares];
    row.append(...cells.map((text) => element("td", text)));
    return row;
  });
  table.replaceChildren(head, ...rows);
}

export function drawParts(list, parts) {
  list.replaceChildren(
    ...parts.map(({ title, detail }) => {
      const item = element("li");
      item.append(element("b", title), element("span", detail));
      return item;
    }),
  );
}
