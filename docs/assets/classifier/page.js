// The classifier's page: takes a picture, shows what the network sees and what it thinks.
"use strict";
{
  const STRIP = 256; // rows of a picture that are read at once
  const LOST = "下载失败，请检查网络后再选一次。";
  const UNREADABLE =
    "打不开这个文件：请先存成 JPEG 或 PNG（HEIC、TIFF、SVG 不行）；太大的图先缩小。";
  const script = new URL("worker.js", document.currentScript.src);
  const box = document.querySelector(".classifier");
  const find = (name) => box.querySelector(`[data-part=${name}]`);
  const status = find("status"), result = find("result"), seen = find("seen");
  let worker, latest = 0, note = "";

  const say = (text) => { status.textContent = text; };

  // What was chosen last counts, whichever is ready first.
  const ask = async ([blob, ...others]) => {
    const number = ++latest;
    note = others.length ? "只看第一张。" : "";
    find("answer").hidden = true;
    say(`${note}正在准备……`);
    let picture;
    try {
      picture = read(await createImageBitmap(blob, { colorSpaceConversion: "none" }));
    } catch {
      if (number === latest) say(UNREADABLE);
      return;
    }
    if (number !== latest) return;
    worker ??= start();
    worker.postMessage({ number, picture }, [picture.data.buffer]);
  };

  // Its pixels; what is transparent lies on white. In strips, since a canvas in Safari holds fewer
  // pixels than a phone's camera.
  const read = (bitmap) => {
    const { width, height } = bitmap, data = new Uint8ClampedArray(4 * width * height);
    const canvas = Object.assign(document.createElement("canvas"), { width, height: STRIP });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    for (let top = 0; top < height; top += STRIP) {
      context.fillRect(0, 0, width, STRIP);
      context.drawImage(bitmap, 0, -top);
      const strip = context.getImageData(0, 0, width, Math.min(STRIP, height - top));
      data.set(strip.data, 4 * width * top);
    }
    bitmap.close();
    if (data[3] === 0) throw new Error("too wide a canvas stays empty");
    return { width, height, data };
  };

  const start = () => {
    const started = new Worker(script);
    started.onmessage = ({ data: { number, progress, lost, error, ...found } }) => {
      if (number !== latest) return;
      if (lost) say(LOST);
      else if (error) say(`没有算成：${error}`);
      else if (progress < 100) say(`正在下载权重：${progress}%`);
      else if (progress === 100) say("正在计算……");
      else show(found);
    };
    started.onerror = () => { // one of its scripts did not come
      started.terminate();
      worker = undefined;
      say(LOST);
    };
    return started;
  };

  const show = ({ answer: { probabilities, maps, size }, pixels, milliseconds }) => {
    const names = JSON.parse(box.dataset.classes);
    const order = probabilities.map((_, k) => k).sort((a, b) => probabilities[b] - probabilities[a]);
    result.replaceChildren(...order.map((k) => {
      const row = document.createElement("li"), bar = document.createElement("span");
      bar.className = "classifier-bar";
      bar.style.width = `${100 * probabilities[k]}%`;
      row.dataset.probability = probabilities[k];
      row.append(`${names[k]} ${(100 * probabilities[k]).toFixed(1)}%`, bar);
      return row;
    }));
    draw(pixels, maps[order[0]], size);
    say(`${note}最像${names[order[0]]}。计算用了 ${Math.round(milliseconds)} 毫秒，图片没有离开这台设备。`);
    find("answer").hidden = false;
    box.scrollIntoView({ block: "nearest" });
  };

  // The picture as the network sees it, and beside it in grey with what speaks for the answer.
  const draw = (pixels, map, size) => {
    const [plain, heat] = seen.querySelectorAll("canvas");
    const side = plain.width, area = side * side;
    const low = Math.min(...map), span = Math.max(...map) - low || 1;
    for (const [canvas, strength] of [[plain, 0], [heat, 0.75]]) {
      const context = canvas.getContext("2d"), image = context.createImageData(side, side);
      for (let p = 0; p < area; p++) {
        const y = Math.floor(p / side * size / side), x = Math.floor((p % side) * size / side);
        const share = strength * (map[y * size + x] - low) / span;
        const rgb = [0, 1, 2].map((c) => pixels[c * area + p]);
        const grey = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        [230, 90, 0].forEach((colour, c) => {
          const base = canvas === heat ? grey : rgb[c];
          image.data[4 * p + c] = (1 - share) * base + share * colour;
        });
        image.data[4 * p + 3] = 255;
      }
      context.putImageData(image, 0, 0);
    }
  };

  const emoji = [...find("drawings").querySelectorAll("button")];

  // What a button shows, as the reader's own system draws it, in the middle of a picture.
  const paint = (button) => {
    const side = 256;
    const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.font = `${0.75 * side}px ${getComputedStyle(button).fontFamily}`;
    const ink = context.measureText(button.textContent);
    const x = side + ink.actualBoundingBoxLeft - ink.actualBoundingBoxRight;
    const y = side + ink.actualBoundingBoxAscent - ink.actualBoundingBoxDescent;
    context.fillText(button.textContent, x / 2, y / 2);
    return canvas;
  };

  const isColoured = (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value, k) => k % 4 === 1 && value !== data[k - 1]);
  };

  const offline = location.protocol === "file:";

  // Anywhere on the page, which the browser would leave for the picture otherwise.
  const drop = (event) => {
    const { type, dataTransfer: { types, files } } = event;
    if (!types.includes("Files") && !types.includes("text/uri-list")) return; // text, to search for
    event.preventDefault();
    box.toggleAttribute("data-over", type === "dragover" && !offline);
    if (offline) event.dataTransfer.dropEffect = "none";
    else if (type === "drop" && files[0]) ask(files);
    else if (type === "drop") say("浏览器没有交来图片本身；请先把它存成文件，再拖进来。");
  };
  document.addEventListener("dragover", drop);
  document.addEventListener("drop", drop);
  document.addEventListener("dragleave", () => box.removeAttribute("data-over"));

  find("drawings").hidden = offline || !emoji.some((button) => isColoured(paint(button)));
  if (offline) {
    say("从磁盘打开的页面读不到权重文件；请用 make serve 打开，或访问网站。");
    find("file").closest("p").hidden = true;
  } else {
    emoji.forEach((button) => { button.addEventListener("click", () => ask([paint(button)])); });
    find("file").addEventListener("change", ({ target }) => target.files[0] && ask(target.files));
    find("file").addEventListener("click", ({ target }) => {
      target.value = ""; // so that choosing the same picture once more is a change
    });
    document.addEventListener("paste", ({ target, clipboardData }) => {
      if (clipboardData.files[0] && !target.closest?.("input:not([type=file])")) ask(clipboardData.files);
    });
    if (find("file").files[0]) ask(find("file").files); // chosen before this script was there
  }
}
