// From a picture of any size to the network's input, as cifar_resnet.predict.read_image does:
// the largest centred square, shrunk to 32x32 with a Lanczos filter.
"use strict";

const SIDE = 32;

function lanczos(x) {
  if (x === 0) return 1;
  if (Math.abs(x) >= 3) return 0;
  const angle = Math.PI * x;
  return 3 * Math.sin(angle) * Math.sin(angle / 3) / (angle * angle);
}

/** For each of the new pixels along one side: the first old pixel it takes in, and the weights. */
function windows(length, start, square) {
  const scale = square / SIDE, reach = 3 * Math.max(scale, 1);
  return Array.from({ length: SIDE }, (_, index) => {
    const centre = start + (index + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - reach + 0.5));
    const last = Math.min(length, Math.floor(centre + reach + 0.5));
    const weights = [];
    for (let i = first; i < last; i++) {
      weights.push(lanczos((i + 0.5 - centre) / Math.max(scale, 1)));
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}

/** RGBA pixels of a picture to RGB, uint8, channel after channel. */
function shrink({ width, height, data }) {
  const square = Math.min(width, height);
  const across = windows(width, (width - square) / 2, square);
  const down = windows(height, (height - square) / 2, square);
  const narrow = new Uint8ClampedArray(3 * height * SIDE), small = new Uint8ClampedArray(3 * SIDE * SIDE);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      across.forEach(({ first, weights }, x) => {
        let sum = 0;
        weights.forEach((weight, i) => { sum += weight * data[4 * (y * width + first + i) + c]; });
        narrow[(c * height + y) * SIDE + x] = sum;
      });
    }
    down.forEach(({ first, weights }, y) => {
      for (let x = 0; x < SIDE; x++) {
        let sum = 0;
        weights.forEach((weight, i) => { sum += weight * narrow[(c * height + first + i) * SIDE + x]; });
        small[(c * SIDE + y) * SIDE + x] = sum;
      }
    });
  }
  return small;
}

/** As cifar_resnet.augment.normalize. */
function normalize(pixels, mean, std) {
  const area = SIDE * SIDE;
  const data = Float32Array.from(
    pixels,
    (value, i) => (value / 255 - mean[Math.floor(i / area)]) / std[Math.floor(i / area)],
  );
  return { channels: 3, size: SIDE, data };
}
