// Loads the weights once, then answers each picture; off the page's own thread.
"use strict";
importScripts("network.js", "picture.js");

let ready, latest, told = 0;

function tell(progress) {
  told = progress;
  postMessage({ number: latest, progress });
}

async function get(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${answer.status} ${answer.url}`);
  return answer;
}

async function download(url, bytes) {
  tell(0);
  const { body } = await get(url);
  const parts = [], reader = body.getReader();
  let received = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    const progress = Math.floor(10 * received / bytes) * 10; // few enough to be read aloud
    if (progress > told) tell(progress);
  }
  if (received !== bytes) throw new Error(`${received} bytes of ${bytes}`);
  return new Blob(parts).arrayBuffer();
}

/** The weights, kept for the next visit where the browser lets the page keep something. */
async function getWeights(url, bytes) {
  let store, kept;
  try {
    store = await caches.open("cifar-resnet");
    kept = await store.match(url);
  } catch {} // no such thing here
  if (kept) return kept.arrayBuffer();
  const buffer = await download(url, bytes);
  try {
    for (const old of await store.keys()) await store.delete(old);
    await store.put(url, new Response(buffer));
  } catch {} // no room
  return buffer;
}

async function load() {
  const about = await (await get("classifier.json")).json();
  const buffer = await getWeights(about.weights, about.bytes);
  if (told < 100) tell(100);
  return { ...about, network: buildNetwork(readTensors(buffer)) };
}

onmessage = async ({ data: { number, picture } }) => {
  latest = number;
  if (ready) tell(told);
  let loaded;
  try {
    loaded = await (ready ??= load());
  } catch (error) {
    ready = undefined; // the next picture tries once more
    told = 0;
    console.error(error);
    postMessage({ number, lost: true });
    return;
  }
  await new Promise((go) => { setTimeout(go); }); // lets in what was chosen meanwhile
  if (number !== latest) return;
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
