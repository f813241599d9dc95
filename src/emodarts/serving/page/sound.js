// Sound in the browser: the microphone, WAV files, and the outline of a waveform.

/** Record 16-bit samples; `onChunk(samples, rate)` gets them as they come. */
export async function record(onChunk) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule("/page/worklet.js");
  const node = new AudioWorkletNode(context, "collector", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  const chunks = [];
  let ended;
  node.port.onmessage = ({ data }) => {
    if (data === null) return ended();
    chunks.push(data);
    onChunk(data, context.sampleRate);
  };
  context.createMediaStreamSource(stream).connect(node);
  return {
    rate: context.sampleRate,
    /** End the recording; gives a WAV file. */
    async stop() {
      await new Promise((resolve) => {
        ended = resolve;
        node.port.postMessage("end");
      });
      stream.getTracks().forEach((track) => track.stop());
      const rate = context.sampleRate;
      await context.close();
      return wav(chunks, rate);
    },
  };
}

/** A WAV file of 16-bit mono samples. */
export function wav(chunks, rate) {
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  head.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true);
  head.setUint16(22, 1, true);
  head.setUint32(24, rate, true);
  head.setUint32(28, 2 * rate, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  text(36, "data");
  head.setUint32(40, bytes, true);
  return new Blob([head, ...chunks], { type: "audio/wav" });
}

/** Greatest magnitude in each of `n` equal stretches of a file; null where the browser cannot decode it. */
export async function outline(blob, n = 600) {
  try {
    const context = new OfflineAudioContext(1, 1, 16000);
    const samples = (await context.decodeAudioData(await blob.arrayBuffer())).getChannelData(0);
    const peaks = new Float32Array(n);
    for (let i = 0; i < samples.length; i++) {
      const k = Math.floor((i * n) / samples.length);
      peaks[k] = Math.max(peaks[k], Math.abs(samples[i]));
    }
    return peaks;
  } catch {
    return null;
  }
}
