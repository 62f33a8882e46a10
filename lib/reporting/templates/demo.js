// Records the microphone as it is, sends it piece after piece without loss, and draws what comes back.
const SHOWN = 20, HOP = 0.48, PER_SECOND = 25, SEND_MS = 120, labels = ["crying", "screaming"];
const find = name => element.querySelector(name), now = find(".now"), button = find("button"), table = find("tbody");
const css = name => getComputedStyle(element).getPropertyValue(name).trim(), wait = ms => new Promise(done => setTimeout(done, ms));
const clock = s => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;
let context = null, microphone = null, analyser = null, pending = [], n_recorded = 0, n_columns = 0, frames = [], events = [];
const WORKLET = `registerProcessor("recorder", class extends AudioWorkletProcessor {
  process([[samples]]) { if (samples) this.port.postMessage(samples.slice()); return true; }
});`;
async function start() {
  microphone = await navigator.mediaDevices.getUserMedia({audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
  context = new AudioContext();
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([WORKLET], {type: "text/javascript"})));
  const source = context.createMediaStreamSource(microphone), recorder = new AudioWorkletNode(context, "recorder");
  analyser = Object.assign(context.createAnalyser(), {fftSize: 1024, smoothingTimeConstant: 0, minDecibels: -100, maxDecibels: -25});
  [pending, n_recorded, n_columns, frames, events] = [[], 0, 0, [], []];
  recorder.port.onmessage = ({data}) => { pending.push(data); n_recorded += data.length; };
  source.connect(recorder); source.connect(analyser);
  find(".sound").getContext("2d").clearRect(0, 0, 1e4, 1e4); table.replaceChildren();
  button.textContent = "Stop";
  send(crypto.randomUUID()); draw();
}
function stop() { microphone.getTracks().forEach(track => track.stop()); microphone = null; button.textContent = "Start"; }
function taken() {  // all that waits, as base64 of int16
  const samples = new Int16Array(pending.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of pending) for (const value of part) samples[at++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
  pending = [];
  return btoa(Array.from(new Uint8Array(samples.buffer), byte => String.fromCharCode(byte)).join(""));
}
async function send(name) {
  for (let is_last = false; !is_last; ) {
    await wait(SEND_MS);
    is_last = microphone === null;
    const rate_hz = context.sampleRate;
    show(await server.follow({name, rate_hz, sound: taken(), is_last}));
  }
  await context.close();
}
function show({first_frame, frames: added, label, onset, events: found}) {
  added.forEach((row, i) => { frames[first_frame + i] = row; });
  const seconds = n_recorded / context.sampleRate;
  if (now.dataset.label !== label) Object.assign(now.dataset, {label, after: onset === null ? "" : (seconds - onset).toFixed(2)});
  now.className = `now ${label}`;
  now.firstChild.textContent = label[0].toUpperCase() + label.slice(1);
  if (JSON.stringify(found) === JSON.stringify(events)) return;
  const first_shown = Object.fromEntries([...table.children].map(row => [row.dataset.number, row.dataset.after]));
  events = found;
  table.replaceChildren(...[...events].reverse().map(event => {
    const row = document.createElement("tr");
    Object.assign(row.dataset, {number: event.number, label: event.label, after: first_shown[event.number] ?? (seconds - event.onset_seconds).toFixed(2)});
    const mark = Object.assign(document.createElement("i"), {className: event.label});
    [[mark, event.label], [clock(event.onset_seconds)], [event.kind === "END" ? clock(event.offset_seconds) : "…"], [event.peak_probability.toFixed(2)]]
      .forEach(parts => row.appendChild(document.createElement("td")).append(...parts));
    return row;
  }));
}
function addColumn(canvas) {
  const pen = canvas.getContext("2d"), bins = new Uint8Array(analyser.frequencyBinCount), high = canvas.height;
  analyser.getByteFrequencyData(bins);
  pen.drawImage(canvas, -1, 0);
  const shown = 8000 / (context.sampleRate / 2) * bins.length;
  for (let y = 0; y < high; y++) {
    const value = bins[Math.floor((1 - (y + 1) / high) * shown)] / 255;
    pen.fillStyle = `rgb(${255 * Math.min(1, value * 1.6)},${255 * Math.max(0, value * 1.7 - .6)},${255 * Math.max(Math.sin(value * Math.PI) * .45, value * 3 - 2.3)})`;
    pen.fillRect(canvas.width - 1, y, 1, 1);
  }
}
function draw() {
  const sound = find(".sound"), curves = find(".curves"), pen = curves.getContext("2d"), seconds = n_recorded / context.sampleRate;
  if (sound.width !== SHOWN * PER_SECOND) [sound.width, sound.height] = [SHOWN * PER_SECOND, 96];
  for (; n_columns < seconds * PER_SECOND; n_columns++) addColumn(sound);
  [curves.width, curves.height] = [curves.clientWidth, curves.clientHeight];
  const x = t => (1 - (seconds - t) / SHOWN) * curves.width, y = p => 3 + (1 - p) * (curves.height - 6);
  labels.forEach((label, at) => {
    pen.strokeStyle = css(`--${label}`); pen.lineWidth = 2; pen.beginPath();
    for (let i = Math.max(0, Math.floor((seconds - SHOWN) / HOP)); i < frames.length; i++) pen.lineTo(x((i + .5) * HOP), y(frames[i][at]));
    pen.stroke();
    pen.lineWidth = 1; pen.setLineDash([5, 4]); pen.globalAlpha = .6; pen.beginPath(); pen.moveTo(0, y(+props.on[label])); pen.lineTo(curves.width, y(+props.on[label])); pen.stroke(); pen.setLineDash([]); pen.globalAlpha = 1;
  });
  find(".clock").textContent = clock(seconds);
  if (microphone) requestAnimationFrame(draw);
}
button.onclick = () => microphone ? stop() : start().catch(error => { now.firstChild.textContent = `No microphone: ${error.message}`; });
