// Loads the weights once, then answers each picture; off the page's own thread.
"use strict";
importScripts("network.js", "picture.js");

let ready, latest;

async function get(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${answer.status} ${answer.url}`);
  return answer;
}

async function load(base) {
  const about = await (await get(new URL("classifier.json", base))).json();
  const { body } = await get(new URL(about.weights, base));
  const parts = [], reader = body.getReader();
  let received = 0, told = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    const progress = Math.floor(10 * received / about.bytes) * 10; // few enough to be read aloud
    if (progress > told) postMessage({ number: latest, progress: told = progress });
  }
  if (received !== about.bytes) throw new Error(`${received} bytes of ${about.bytes}`);
  const buffer = await new Blob(parts).arrayBuffer();
  return { ...about, network: buildNetwork(readTensors(buffer)) };
}

onmessage = async ({ data: { number, base, picture } }) => {
  latest = number;
  let loaded;
  try {
    loaded = await (ready ??= load(base));
  } catch (error) {
    ready = undefined; // the next picture tries once more
    console.error(error);
    postMessage({ number, lost: true });
    return;
  }
  try {
    const { network, mean, std } = loaded;
    const begin = performance.now();
    const pixels = shrink(picture);
    const answer = classify(network, normalize(pixels, mean, std));
    postMessage({ number, answer, pixels, milliseconds: performance.now() - begin });
  } catch (error) {
    postMessage({ number, error: String(error) });
  }
};
