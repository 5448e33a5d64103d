// Loads the weights once, then answers each picture; off the page's own thread.
"use strict";
importScripts("network.js", "picture.js");

let ready, latest;

async function load(base) {
  const about = await (await fetch(new URL("classifier.json", base))).json();
  const answer = await fetch(new URL(about.weights, base));
  if (!answer.ok) throw new Error(`${answer.status} ${answer.url}`);
  const parts = [], reader = answer.body.getReader();
  let received = 0, told = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    const progress = Math.floor(10 * received / about.bytes) * 10; // few enough to be read aloud
    if (progress > told) postMessage({ number: latest, progress: told = progress });
  }
  const buffer = await new Blob(parts).arrayBuffer();
  return { ...about, network: buildNetwork(readTensors(buffer)) };
}

onmessage = async ({ data: { number, base, picture } }) => {
  latest = number;
  try {
    ready ??= load(base);
    const { network, mean, std } = await ready;
    const begin = performance.now();
    const pixels = shrink(picture);
    const answer = classify(network, normalize(pixels, mean, std));
    postMessage({ number, answer, pixels, milliseconds: performance.now() - begin });
  } catch (error) {
    ready = undefined;
    postMessage({ number, error: String(error) });
  }
};
