// Collects what the microphone gives and passes it on in chunks of 2048 16-bit samples.
class Collector extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Int16Array(2048);
    this.filled = 0;
    this.port.onmessage = () => {
      this.send();
      this.port.postMessage(null);
    };
  }

  send() {
    const part = this.chunk.slice(0, this.filled);
    this.filled = 0;
    if (part.length) this.port.postMessage(part, [part.buffer]);
  }

  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.chunk[this.filled++] = Math.round(Math.max(-32768, Math.min(32767, sample * 32768)));
      if (this.filled === this.chunk.length) this.send();
    }
    return true;
  }
}
registerProcessor("collector", Collector);
