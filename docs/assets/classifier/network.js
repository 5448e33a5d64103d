// The ResNet-18 of get_cifar_resnet, from the safetensors file that the package ships.
// A feature map is {channels, size, data}: float32, channel after channel, row after row.
"use strict";

/** Every tensor of a safetensors file as {shape, data}, in float32. */
function readTensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  delete header.__metadata__;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(header)) {
    if (name.endsWith("num_batches_tracked")) continue;
    const bytes = buffer.slice(8 + length + begin, 8 + length + end);
    const data = dtype === "F16" ? fromHalf(new Uint16Array(bytes)) : new Float32Array(bytes);
    tensors[name] = { shape, data };
  }
  return tensors;
}

function fromHalf(halves) {
  const table = new Float32Array(1 << 16);
  for (let bits = 0; bits < table.length; bits++) {
    const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
    if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent === 0) table[bits] = sign * fraction * 2 ** -14;
    else table[bits] = sign * (1 + fraction) * 2 ** (exponent - 15);
  }
  return Float32Array.from(halves, (bits) => table[bits]);
}

/** A convolution with the batch normalisation after it folded into its weight and bias. */
function folded(tensors, conv, norm, stride) {
  const { shape: [out, , kernel], data } = tensors[`${conv}.weight`];
  const [gamma, beta, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(
    (part) => tensors[`${norm}.${part}`].data,
  );
  const weight = Float32Array.from(data), bias = new Float32Array(out), row = data.length / out;
  for (let o = 0; o < out; o++) {
    const scale = gamma[o] / Math.sqrt(variance[o] + 1e-5);
    for (let i = o * row; i < (o + 1) * row; i++) weight[i] *= scale;
    bias[o] = beta[o] - mean[o] * scale;
  }
  return { weight, bias, kernel, stride };
}

function buildNetwork(tensors) {
  const blocks = [];
  for (const stage of [1, 2, 3, 4]) {
    for (const index of [0, 1]) {
      const name = `layer${stage}.${index}`;
      const stride = stage > 1 && index === 0 ? 2 : 1;
      blocks.push({
        first: folded(tensors, `${name}.conv1`, `${name}.bn1`, stride),
        second: folded(tensors, `${name}.conv2`, `${name}.bn2`, 1),
        projection: stride > 1 &&
          folded(tensors, `${name}.downsample.0`, `${name}.downsample.1`, stride),
      });
    }
  }
  return {
    stem: folded(tensors, "conv1", "bn1", 1),
    blocks,
    weight: tensors["fc.weight"].data,
    bias: tensors["fc.bias"].data,
  };
}

/** The values under each position of the kernel, row after row of a matrix. */
function patches({ channels, size, data }, kernel, stride) {
  const pad = (kernel - 1) / 2, out = Math.ceil(size / stride), area = out * out;
  const matrix = new Float32Array(channels * kernel * kernel * area);
  let row = 0;
  for (let c = 0; c < channels; c++) {
    for (let ky = 0; ky < kernel; ky++) {
      for (let kx = 0; kx < kernel; kx++, row += area) {
        for (let y = 0; y < out; y++) {
          const sy = y * stride + ky - pad;
          if (sy < 0 || sy >= size) continue;
          for (let x = 0; x < out; x++) {
            const sx = x * stride + kx - pad;
            if (sx >= 0 && sx < size) {
              matrix[row + y * out + x] = data[(c * size + sy) * size + sx];
            }
          }
        }
      }
    }
  }
  return { matrix, out, area };
}

function convolve(input, { weight, bias, kernel, stride }) {
  const { matrix, out, area } = patches(input, kernel, stride);
  const channels = bias.length, depth = weight.length / channels;
  const data = new Float32Array(channels * area);
  for (let o = 0; o < channels; o += 4) { // four rows at once: each patch is read once for four
    const a = data.subarray(o * area, (o + 1) * area).fill(bias[o]);
    const b = data.subarray((o + 1) * area, (o + 2) * area).fill(bias[o + 1]);
    const c = data.subarray((o + 2) * area, (o + 3) * area).fill(bias[o + 2]);
    const d = data.subarray((o + 3) * area, (o + 4) * area).fill(bias[o + 3]);
    for (let k = 0; k < depth; k++) {
      const wa = weight[o * depth + k], wb = weight[(o + 1) * depth + k];
      const wc = weight[(o + 2) * depth + k], wd = weight[(o + 3) * depth + k];
      const row = k * area;
      for (let p = 0; p < area; p++) {
        const value = matrix[row + p];
        a[p] += wa * value;
        b[p] += wb * value;
        c[p] += wc * value;
        d[p] += wd * value;
      }
    }
  }
  return { channels, size: out, data };
}

function relu(map, shortcut) {
  const { data } = map;
  for (let i = 0; i < data.length; i++) {
    data[i] = Math.max(0, shortcut ? data[i] + shortcut.data[i] : data[i]);
  }
  return map;
}

/** Probabilities of the classes, and for each class how much every place speaks for it. */
function classify(network, input) {
  let x = relu(convolve(input, network.stem));
  for (const { first, second, projection } of network.blocks) {
    const shortcut = projection ? convolve(x, projection) : x;
    x = relu(convolve(relu(convolve(x, first)), second), shortcut);
  }
  const area = x.size * x.size, logits = [], maps = [];
  for (let k = 0; k < network.bias.length; k++) {
    const map = new Float32Array(area);
    for (let c = 0; c < x.channels; c++) {
      const weight = network.weight[k * x.channels + c];
      for (let p = 0; p < area; p++) map[p] += weight * x.data[c * area + p];
    }
    maps.push(Array.from(map));
    logits.push(map.reduce((sum, value) => sum + value, 0) / area + network.bias[k]);
  }
  const highest = Math.max(...logits);
  const exponentials = logits.map((logit) => Math.exp(logit - highest));
  const total = exponentials.reduce((sum, value) => sum + value, 0);
  return { probabilities: exponentials.map((value) => value / total), maps, size: x.size };
}
