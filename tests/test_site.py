"""The built site in a real browser, served from a sub-path, on every page, light and dark.

Without Chromium these tests are skipped; with ``REQUIRE_BROWSER=1`` they fail instead.
"""

import functools
import gzip
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from PIL import ExifTags, Image
from playwright.sync_api import (
    Browser,
    Page,
    Request,
    Response,
    Route,
    expect,
    sync_playwright,
)
from torch import Tensor, nn
from wording import CLASSES

from cifar_resnet.augment import normalize
from cifar_resnet.files import sha256
from cifar_resnet.predict import WEIGHTS, classify, load_pretrained, read_image
from cifar_resnet.recipe import get_recipe
from cifar_resnet.record import write_record
from tests import ROOT
from tests.site_build import FLAGS, PREFIX, build, invented, served, small, tree

SCHEMES = ("light", "dark")
PAGES = sorted(
    path.relative_to(ROOT / "docs").with_suffix("").as_posix().removesuffix("index")
    for pattern in ("*.md", "*.ipynb")
    for path in (ROOT / "docs").rglob(pattern)
)
# Punctuation that could start a line, or end one, away from its formula.
LONELY_STOPS = """[...document.querySelectorAll("span.arithmatex")].filter(
    (e) => !e.closest(".whole") && (/^[，。、；：！？）”]/.test(e.nextSibling?.data ?? "")
        || /[（“]$/.test(e.previousSibling?.data ?? ""))
).map((e) => e.parentElement.innerText)"""
# Words of a chart outside of it, where they may run into others or out of the page.
OUTSIDE = """[...document.querySelectorAll("figure.chart .panel svg text")].filter((e) => {
    const chart = e.closest("svg").getBoundingClientRect(), word = e.getBoundingClientRect();
    return word.left < chart.left - 2 || word.right > chart.right + 2;
}).map((e) => e.textContent)"""
# Headings hide what sticks out of them, which should be no more than the sign for their link.
CUT_HEADINGS = """[...document.querySelectorAll("article :is(h2, h3, h4, h5)")].filter((e) => {
    const text = document.createRange(), sign = e.querySelector(".headerlink");
    text.selectNodeContents(e);
    if (sign) text.setEndBefore(sign);
    return text.getBoundingClientRect().right > e.getBoundingClientRect().right + 1;
}).map((e) => e.innerText)"""
# What scripts add, they have added, and the fonts that the page uses are there.
SETTLED = """new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(
    () => document.fonts.ready.then(() => done())
)))"""
TIMEOUT = 120_000  # milliseconds: the machine may be busy


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real pages, with two invented runs beside the published ones."""
    folder = tree(tmp_path_factory.mktemp("site"))
    for seed in (7, 8):
        record = invented(get_recipe("notes-cpu"), seed, 0.93)
        write_record(record, folder / "results" / "runs" / f"{record.id}.json")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    with served(site) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail("REQUIRE_BROWSER=1, but there is no chromium on PATH")
        pytest.skip("needs a browser: install Debian's package chromium")
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator["functools.partial[Page]"]:
    """Opens a page and, at the end, fails for anything that went wrong on it."""
    contexts, problems = [], []

    def opened(path: str, scheme: str = "light", width: int = 1440) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.on("console", lambda m: m.type == "error" and problems.append(m.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda r: _failed(r) and problems.append(f"failed: {r.url}"))
        page.on("response", lambda r: r.status >= 400 and problems.append(f"{r.status}: {r.url}"))
        page.on("request", lambda r: _foreign(r.url) and problems.append(f"foreign: {r.url}"))
        page.goto(address + path)
        page.evaluate(SETTLED)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def _failed(request: Request) -> bool:
    """A page that is left breaks its own requests off, which is no failure."""
    return request.failure != "net::ERR_ABORTED"


def _foreign(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1"


def _path(name: str) -> str:
    return f"{name}/" if name else ""


def has_code(name: str) -> bool:
    page = ROOT / "docs" / f"{name or 'index'}.md"
    return not page.exists() or "```python" in page.read_text()


def barriers(page: Page) -> list[tuple[str, list[str]]]:
    """What axe finds that keeps readers with other senses or tools out."""
    page.add_script_tag(path=ROOT / "hooks" / "web" / "node_modules" / "axe-core" / "axe.min.js")
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [(v["id"], [node["html"][:120] for node in v["nodes"]]) for v in found]


def test_most_pages_have_code() -> None:
    assert len(list(filter(has_code, PAGES))) > len(PAGES) / 2
    assert not has_code("references")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(open_page, site: Path, name: str, scheme: str) -> None:
    page = open_page(_path(name), scheme)
    source = (site / name / "index.html").read_text(encoding="utf-8")
    assert page.locator("html").get_attribute("lang") == "zh"
    assert page.locator("h1").count() == 1
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(part) for part in background[4:-1].split(",")[:3])
    assert (lightness > 600) == (scheme == "light")

    formulas = page.locator(".arithmatex")
    assert formulas.count() == page.locator(".arithmatex .katex-html").count()
    assert formulas.count() == page.locator(".arithmatex math").count()
    assert page.evaluate(LONELY_STOPS) == []
    assert page.evaluate(OUTSIDE) == []
    assert ("katex.min.css" in source) == (formulas.count() > 0)
    assert ("charts.css" in source) == (page.locator("figure.chart, figure.strips").count() > 0)
    assert ("_mkdocstrings.css" in source) == name.startswith("api/")
    assert "{{ " not in page.locator("article").inner_text()

    if has_code(name):
        assert page.locator(".notebook-buttons a").count() == 2
        notebook = page.locator(".notebook-buttons a[download]").get_attribute("href")
        assert (site / name / str(notebook)).resolve().is_file()
        colab = page.locator(".notebook-buttons a:not([download])").get_attribute("href")
        assert str(colab).endswith(f"docs/notebooks/{Path(str(notebook)).name}")

    for drawing in page.locator("figure.diagram svg").all():
        assert len(drawing.get_attribute("aria-label") or "") > 10
        assert drawing.bounding_box()["width"] > 100
    assert 'class="mermaid"' not in source, "every diagram was drawn when the site was built"

    assert barriers(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_small_phone(open_page, name: str) -> None:
    page = open_page(_path(name), width=320)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate(CUT_HEADINGS) == []
    assert page.evaluate(OUTSIDE) == []
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.wait_for_timeout(100)
    assert barriers(page) == []


def test_an_address_that_is_not_there_leads_on(browser: Browser, address: str, site: Path) -> None:
    """A host of sites shows this page, in place, for whatever it does not have."""
    page = browser.new_page(java_script_enabled=False)
    lost = (site / "404.html").read_text(encoding="utf-8")
    page.route("**/gone/**", lambda route: route.fulfill(body=lost, content_type="text/html"))
    page.goto(f"{address}gone/and/away/")
    assert page.locator("h1").inner_text() == "没有这个页面"
    links = page.locator("article li a").evaluate_all("all => all.map((a) => a.href)")
    assert links == [address, f"{address}results/", f"{address}classify/"]
    page.close()


def test_claims_can_be_read_on_a_phone(open_page) -> None:
    """Whole, without scrolling sideways."""
    page = open_page("results/", width=390)
    table = page.locator(".md-typeset__scrollwrap", has=page.locator(".claim-origin"))
    assert table.evaluate("(e) => e.scrollWidth - e.clientWidth") == 0
    widths = table.locator("td:first-child").evaluate_all("all => all.map((e) => e.clientWidth)")
    assert min(widths) > 200


def test_some_page_has_formulas_and_some_a_diagram(site: Path) -> None:
    sources = [path.read_text(encoding="utf-8") for path in site.rglob("index.html")]
    assert any('class="katex"' in source for source in sources)
    assert sum(source.count('<figure class="diagram"') for source in sources) >= 3


def test_colour_switch_goes_round(open_page) -> None:
    page = open_page("")
    seen = []
    for _ in range(3):
        page.locator("form[data-md-component=palette] label:not([hidden])").click()
        seen.append(page.locator("body").get_attribute("data-md-color-scheme"))
    assert seen == ["default", "slate", "default"]


def test_menu_opens_on_a_phone(open_page) -> None:
    page = open_page("", width=390)
    link = page.locator(".md-nav--primary a[href$='results/']").first
    assert not link.is_visible() or link.bounding_box()["x"] < 0
    page.locator("label.md-header__button[for=__drawer]").click()
    page.wait_for_timeout(400)
    link.click()
    page.wait_for_url("**/results/")


FOCUSABLE = """() => [...document.querySelectorAll(
    "a[href], button, summary, input:not([type=hidden]), [tabindex='0']"
)].filter(e => !e.disabled && e.tabIndex >= 0 && e.type !== "radio" && e.checkVisibility({
    opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true
}))"""


@pytest.mark.parametrize("name", ["", "residual-block", "classify", "notebooks/gradients"])
def test_the_keyboard_reaches_everything(open_page, name: str) -> None:
    """Tab goes through every link, button, folded part and field in view, and out again."""
    page = open_page(_path(name))
    page.evaluate(f"window.wanted = new Set(({FOCUSABLE})())")
    count = page.evaluate("wanted.size")
    assert count > 20
    for _ in range(count + 30):
        page.keyboard.press("Tab")
        page.evaluate("wanted.delete(document.activeElement)")
        if not page.evaluate("wanted.size"):
            break
    assert page.evaluate("[...wanted].map(e => e.outerHTML.slice(0, 100))") == []


def test_code_can_be_copied(open_page) -> None:
    page = open_page("model/")
    expect(page.locator("article .md-code__button[data-md-type=copy]")).not_to_have_count(0)


QUERIES = {
    "残差块": "residual-block/",
    "恒等映射": "residual-block/",
    "快捷连接": "residual-block/",
    "预激活": "residual-block/#pre-activation",
    "Bottleneck": "residual-block/#blocks",
    "BasicBlock": "residual-block/#blocks",
    "批量归一化": "residual-block/#batch-norm",
    "梯度消失": "background/#vanishing-gradient",
    "退化问题": "background/#degradation",
    "过拟合": "background/#not-overfitting",
    "感受野": "model/#receptive-field",
    "计算量": "model/#cost",
    "动量": "training/#momentum",
    "余弦退火": "training/#cosine",
    "权重衰减": "training/#weight-decay",
    "weight_decay": "training/",
    "weight decay": "training/#weight-decay",
    "标签平滑": "training/#label-smoothing",
    "随机擦除": "training/#random-erasing",
    "混淆矩阵": "results/",
    "校准误差": "results/",
    "混合精度": "speed/",
    "镜像": "reproduce/",
    "实验记录": "reproduce/#record",
    "类激活图": "classify/",
    "前向钩子": "notebooks/feature-maps/",
    "Sigmoid": "notebooks/gradients/",
    "关掉": "notebooks/residual-blocks/",
    "信噪比": "notebooks/training/",
    "get_cifar_resnet": "api/",
    "Veit": "references/#veit2016",
}


def test_search_understands_chinese(open_page) -> None:
    page = open_page("")
    field = page.locator("input.md-search__input")
    field.click()
    meta = page.locator(".md-search-result__meta")
    expect(meta).not_to_contain_text("正在初始化")
    missed = {}
    for query, target in QUERIES.items():
        field.fill("")
        expect(meta).to_contain_text("键入以开始搜索")
        page.keyboard.insert_text(query)  # as pasted or written by hand: no key is pressed
        expect(meta).to_contain_text("结果")
        links = page.locator(".md-search-result__link").evaluate_all("all => all.map(a => a.href)")
        found = [urlsplit(link)._replace(query="").geturl() for link in links]
        if not any(target in link for link in found):
            missed[query] = [link.split(PREFIX)[1] for link in found]
    assert missed == {}


@pytest.mark.parametrize("name", PAGES)
def test_first_view_is_light(browser: Browser, address: str, name: str) -> None:
    """Bytes of all that a first visit loads, compressed as a server would."""
    page = browser.new_page()
    loaded: list[Response] = []
    page.on("response", lambda response: loaded.append(response))
    page.goto(address + _path(name), wait_until="networkidle")
    # Fonts and pictures hardly shrink, so that this is close to what they weigh anyway.
    weight = sum(len(gzip.compress(response.body())) for response in loaded)
    page.close()
    limit = 500 if name.startswith("notebooks/") else 350
    assert weight < limit * 1000


def test_results_link_to_their_records(open_page) -> None:
    page = open_page("results/")
    links = page.locator(".runs a")
    assert links.count() >= 2
    for link in links.all():
        answer = page.request.get(link.evaluate("element => element.href"))
        assert answer.json()["data"]["name"] == "cifar10"


def test_charts_speak(open_page) -> None:
    page = open_page("results/")
    charts = page.locator("figure.chart")
    assert charts.count() >= 4
    for chart in charts.all():
        assert chart.locator("details table").count() >= 1
        for drawing in chart.locator(".panel svg").all():
            assert len(drawing.get_attribute("aria-label") or "") > 10


def choose(page: Page, picture: Path) -> None:
    """Choose a picture as a reader does, the same one again too."""
    with page.expect_file_chooser() as chooser:
        page.locator(".classifier label").click()
    chooser.value.set_files(picture)


DROP = ("dragEnter", "dragOver", "drop")


def drag(page: Page, target: str, what: dict[str, Any], kinds: Sequence[str] = DROP) -> None:
    """Drop something from elsewhere; by default the browser leaves the page for a picture."""
    session, place = page.context.new_cdp_session(page), page.locator(target).bounding_box()
    assert place is not None
    event = {
        "x": place["x"] + place["width"] / 2,
        "y": place["y"] + place["height"] / 2,
        "data": {"items": [], "dragOperationsMask": 1} | what,
    }
    for kind in kinds:
        session.send("Input.dispatchDragEvent", event | {"type": kind})


def drawings(model: nn.Module, image: Tensor) -> Tensor:
    """What the network sees, and in colour what speaks for its answer, cell by cell."""
    features = nn.Sequential(*list(model.children())[:-2])(normalize(image[None]))[0]
    weight = model.get_parameter("fc.weight")[classify(model, image[None]).argmax()]
    cells = (weight[:, None, None] * features).sum(0)
    row, column = divmod(int(cells.argmax()), 4)
    assert row != column, "or the map could be transposed"
    share = 0.75 * (cells - cells.min()) / (cells.max() - cells.min())
    share = share.repeat_interleave(8, 0).repeat_interleave(8, 1)
    colour = torch.tensor([230, 90, 0])[:, None, None]
    grey = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * image).sum(0)
    return torch.stack([image, (1 - share) * grey + share * colour])


PIXELS = "all => all.map((e) => [...e.getContext('2d').getImageData(0, 0, 32, 32).data])"
CANVASES = """() => {
    const make = document.createElement.bind(document);
    window.canvases = [];
    document.createElement = (...all) => {
        const made = make(...all);
        if (all[0] === "canvas") canvases.push(made);
        return made;
    };
}"""


@torch.no_grad()
def test_the_browser_answers_as_the_package_does(open_page, tmp_path: Path) -> None:
    waves = torch.arange(300)[:, None] * torch.tensor([0.04, 0.05, 0.07])
    rows, columns = waves[:200, None].sin(), waves[None, :].cos()
    pixels = ((rows + columns + 2) * 63).round().to(torch.uint8)
    whole = Image.fromarray(pixels.numpy())
    alpha = Image.new("L", whole.size, 0)
    alpha.paste(255, (60, 40, 220, 180))
    cut_out = whole.copy()
    cut_out.putalpha(alpha)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # as a phone held upright writes it

    paths = [tmp_path / name for name in ("whole.png", "cut-out.png", "large.png", "turned.jpg")]
    whole.save(paths[0])
    cut_out.save(paths[1])
    whole.resize((4200, 4100)).save(paths[2], compress_level=1)
    whole.save(paths[3], exif=exif, quality=100, subsampling=0)
    whole.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    lying, turned, upright = (
        read_image(path).float() for path in (paths[0], paths[3], tmp_path / "upright.png")
    )
    assert (turned - upright).abs().max() < 5
    assert (turned - lying).abs().max() > 50

    model = load_pretrained()
    page = open_page("classify/")
    page.evaluate(CANVASES)
    for path in paths:
        image = read_image(path)
        (expected,) = classify(model, image[None]).tolist()
        choose(page, path)
        expect(page.locator("[data-part=answer]")).to_be_visible()
        shown = page.locator(".classifier li").evaluate_all(
            "all => all.map(row => [row.innerText.split(' ')[0], Number(row.dataset.probability)])"
        )
        assert dict(shown) == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=0.001)
        assert [share for _, share in shown] == sorted((s for _, s in shown), reverse=True)
        drawn = torch.tensor(page.locator(".classifier canvas").evaluate_all(PIXELS))
        drawn = drawn.reshape(2, 32, 32, 4)[..., :3].permute(0, 3, 1, 2)
        assert (drawn - drawings(model, image)).abs().max() <= 2
    areas = page.evaluate("canvases.map((each) => each.width * each.height)")
    assert len(areas) == len(paths)
    assert max(areas) <= 16_777_216, "Safari has no larger canvas"

    text = tmp_path / "text.png"
    text.write_text("no picture")
    choose(page, text)
    expect(page.locator("[data-part=status]")).to_contain_text("打不开这个文件")
    expect(page.locator("[data-part=answer]")).to_be_hidden()


# What is read next waits, decoded already, for `release()`.
HOLD = """() => {
    const decode = createImageBitmap;
    window.createImageBitmap = async (...all) => {
        window.createImageBitmap = decode;
        const bitmap = await decode(...all);
        await new Promise((go) => { window.release = go; });
        return bitmap;
    };
}"""
SHOWN = """() => {
    const note = (name, all) => {
        const part = document.querySelector(`[data-part=${name}]`);
        new MutationObserver(() => all.push(part.innerText)).observe(part, { childList: true });
    };
    window.shown = [];
    window.said = [];
    note("result", shown);
    note("status", said);
}"""
# What the worker of the page answers, numbers of pictures, is in `answers`.
ANSWERS = """() => {
    window.answers = [];
    window.Worker = class extends Worker {
        constructor(...all) {
            super(...all);
            window.worker = this;
            this.addEventListener("message", ({ data: { number, answer } }) => {
                if (answer) answers.push(number);
            });
        }
    };
}"""
ASK = """([first, last]) => {
    const picture = { width: 32, height: 32, data: new Uint8ClampedArray(4 * 32 * 32) };
    for (let number = first; number <= last; number++) worker.postMessage({ number, picture });
}"""


def test_the_classifier_answers_the_last_picture(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    """Chosen before the script was there, while another is computed, or while another is read."""
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    Image.linear_gradient("L").save(first)
    Image.radial_gradient("L").save(second)
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    status, answer = page.locator("[data-part=status]"), page.locator("[data-part=answer]")

    def choose_first(route: Route) -> None:
        choose(page, first)
        route.continue_()

    page.route("**/classifier/page.js", choose_first, times=1)
    page.goto(f"{address}classify/")
    expect(answer).to_be_visible()
    other = page.locator("[data-part=result]").inner_text()

    def choose_second(route: Route) -> None:
        for _ in range(3):
            choose(page, second)
            expect(status).to_have_text("正在下载权重：0%")
        route.continue_()

    page.route("**/classifier/*.safetensors*", choose_second, times=1)
    page.reload()
    page.evaluate("caches.delete('cifar-resnet')")
    page.evaluate(SHOWN)
    page.evaluate(ANSWERS)
    choose(page, first)
    expect(answer).to_be_visible()
    (right,) = page.evaluate("shown")
    assert right != other
    assert page.evaluate("answers") == [4], "of those that waited, the last is computed"
    page.evaluate(ASK, [11, 15])
    page.wait_for_function("answers.includes(15)")
    # The first may be alone for a moment, where the page has to wait for a core.
    assert page.evaluate("answers") in ([4, 15], [4, 11, 15])

    page.evaluate(HOLD)
    choose(page, first)
    page.wait_for_function("'release' in window")
    choose(page, second)
    expect(answer).to_be_visible()
    said = status.inner_text()
    page.evaluate("release()")
    assert status.inner_text() == said
    assert page.evaluate("shown") == [right, right]
    page.close()


def lose(page: Page, url: str, answer: dict[str, Any]) -> None:
    """The next request for it fails, or gets another answer."""

    def handle(route: Route) -> None:
        route.fulfill(**answer) if answer else route.abort()

    page.route(url, handle, times=1)


def test_the_classifier_tries_a_broken_download_again(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    Image.linear_gradient("L").save(picture)
    page, logged = browser.new_page(), []
    page.set_default_timeout(TIMEOUT)
    page.on("console", lambda message: logged.append(message.text))
    page.goto(f"{address}classify/")
    missing = {"status": 404, "body": "<html>"}
    for name, answer in (
        ("worker.js", {}),
        ("network.js", {}),
        ("classifier.json", {}),
        ("classifier.json", missing),
        ("resnet18.safetensors", {}),
        ("resnet18.safetensors", missing),
        ("resnet18.safetensors", {"body": WEIGHTS.read_bytes()[:1_000_000]}),
    ):
        lose(page, f"**/classifier/{name}*", answer)
        with page.expect_request(f"**/classifier/{name}*"):
            choose(page, picture)
        expect(page.locator("[data-part=status]")).to_have_text("下载失败，请检查网络后再选一次。")
    assert sum(line.startswith("Error: 404 http") for line in logged) == 2
    choose(page, picture)
    expect(page.locator("[data-part=answer]")).to_be_visible()
    page.close()


def test_weights_are_kept_for_the_next_visit(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    Image.linear_gradient("L").save(picture)
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    answer = page.locator("[data-part=answer]")
    page.goto(f"{address}classify/")
    page.evaluate(
        "caches.open('cifar-resnet').then((all) => all.put('/old', new Response('earlier')))"
    )
    page.evaluate(SHOWN)
    choose(page, picture)
    expect(answer).to_be_visible()
    tens = [f"正在下载权重：{share}%" for share in range(0, 100, 10)]
    ready, *loading, counting, done = page.evaluate("said")
    assert [ready, counting] == ["正在准备……", "正在计算……"]
    assert loading[0] == tens[0]
    assert loading == [text for text in tens if text in loading], "each once, in order"
    assert done.startswith("最像")
    first = page.locator("[data-part=result]").inner_text()
    keys = "caches.open('cifar-resnet').then((all) => all.keys())"
    (url,) = page.evaluate(f"{keys}.then((all) => all.map((e) => e.url))")
    assert url.endswith(sha256(WEIGHTS))

    page.reload()
    page.evaluate(SHOWN)
    page.route("**/*.safetensors*", lambda route: route.abort())
    choose(page, picture)
    expect(answer).to_be_visible()
    assert page.evaluate("said.slice(0, -1)") == ["正在准备……", "正在计算……"]
    assert page.locator("[data-part=result]").inner_text() == first

    page.unroute("**/*.safetensors*")
    page.reload()
    worker = (ROOT / "docs/assets/classifier/worker.js").read_text()
    insecure = {"body": f"self.caches = undefined;{worker}", "content_type": "text/javascript"}
    page.route("**/worker.js", lambda route: route.fulfill(**insecure))
    choose(page, picture)
    expect(answer).to_be_visible()
    context.close()


@pytest.mark.parametrize("width", [320, 1440])
def test_the_answer_is_in_view(open_page, tmp_path: Path, width: int) -> None:
    picture = tmp_path / "picture.png"
    Image.linear_gradient("L").save(picture)
    page = open_page("classify/", width=width)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    accepted = page.locator("[data-part=file]").get_attribute("accept") or ""
    assert "image/jpeg" in accepted
    assert not {"image/*", "image/svg+xml", "image/tiff", "image/heic"} & set(accepted.split(","))
    page.locator("[data-part=file]").set_input_files(picture)
    expect(page.locator("[data-part=answer]")).to_be_visible()
    for part in ("status", "seen", "result"):
        expect(page.locator(f"[data-part={part}]")).to_be_in_viewport(ratio=1)
    beside = page.evaluate(
        "['seen', 'result'].map((e) => document.querySelector(`[data-part=${e}]`).offsetTop)"
    )
    assert (beside[0] == beside[1]) == (width == 1440)


def test_an_emoji_is_a_picture(open_page) -> None:
    page = open_page("classify/")
    buttons = page.locator("[data-part=drawings] button")
    if not buttons.first.is_visible() and os.environ.get("REQUIRE_BROWSER") != "1":
        pytest.skip("needs a font with emoji in colour: make browser")
    named = [button.get_attribute("aria-label") for button in buttons.all()]
    assert named == json.loads(page.locator(".classifier").get_attribute("data-classes"))
    told = []
    for button in buttons.all():
        button.click()
        expect(page.locator("[data-part=answer]")).to_be_visible()
        told.append(page.locator(".classifier li").first.inner_text().split()[0])
    assert sum(a == b for a, b in zip(told, named, strict=True)) > len(named) / 2


def test_a_picture_may_be_dropped_anywhere(open_page, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.linear_gradient("L").save(picture)
    page = open_page("classify/")
    link = {"mimeType": "text/uri-list", "data": page.url}
    drag(page, "h1", {"items": [link]})
    expect(page.locator("[data-part=status]")).to_contain_text("没有交来图片本身")
    status, answer = page.locator("[data-part=status]"), page.locator("[data-part=answer]")
    drag(page, "h1", {"files": [str(picture)]})
    expect(answer).to_be_visible()
    expect(status).not_to_contain_text("只看第一张")

    other = tmp_path / "other.png"
    Image.radial_gradient("L").save(other)
    first = page.locator("[data-part=result]").inner_text()
    drag(page, "h1", {"files": [str(picture), str(other)]})
    expect(answer).to_be_visible()
    expect(status).to_contain_text("只看第一张。最像")
    assert page.locator("[data-part=result]").inner_text() == first

    box, files = page.locator(".classifier"), {"files": [str(picture)]}
    resting = box.evaluate("e => getComputedStyle(e).borderTopStyle")
    drag(page, "h1", files, ("dragEnter", "dragOver"))
    expect(box).to_have_attribute("data-over", "")
    assert [resting, box.evaluate("e => getComputedStyle(e).borderTopStyle")] == ["dashed", "solid"]
    page.locator("h1").dispatch_event("dragleave")
    expect(box).not_to_have_attribute("data-over", "")
    drag(page, "h1", files)
    expect(box).not_to_have_attribute("data-over", "")
    expect(answer).to_be_visible()
    page.locator("input.md-search__input").click()
    drag(page, "input.md-search__input", {"items": [{"mimeType": "text/plain", "data": "words"}]})
    expect(page.locator("input.md-search__input")).to_have_value("words")


def test_without_scripts_the_classifier_says_what_it_needs(browser: Browser, address: str) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}classify/")
    expect(page.locator(".classifier noscript p")).to_be_visible()
    page.close()


def test_offline_pages_work_from_disk(browser: Browser, tmp_path: Path) -> None:
    diagram = "```mermaid\ngraph LR\n    accDescr: 从 A 到 B\n    A --> B\n```"
    pages = {
        "index.md": f"# 首页\n\n$x^2$\n\n{diagram}",
        "other.md": "# 残差块\n\n恒等映射",
        "results.md": "# 结果",
        "try.md": "---\nclassifier: true\n---\n\n# 试\n\n{{ classifier() }}",
    }
    folder = small(tmp_path, pages)
    shutil.copytree(ROOT / "docs" / "assets", folder / "docs" / "assets")
    done = build(folder, OFFLINE="true")
    assert done.returncode == 0, done.stderr
    moved = (tmp_path / "site").rename(tmp_path / "解压 到这里")
    context = browser.new_context()
    page, problems = context.new_page(), []
    page.set_default_timeout(TIMEOUT)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: r.url.startswith("http") and problems.append(r.url))
    page.goto((moved / "index.html").as_uri())
    expect(page.get_by_role("img", name="从 A 到 B")).to_be_visible()
    page.locator("input.md-search__input").click()
    page.keyboard.type("恒等映射")
    page.keyboard.press("End")
    expect(page.locator(".md-search-result__link").first).to_be_visible()
    page.locator(".md-search-result__link").first.click()
    page.wait_for_url("**/other.html*")

    page.goto((moved / "try.html").as_uri())
    expect(page.locator("[data-part=status]")).to_contain_text("从磁盘打开的页面")
    expect(page.locator(".classifier label")).to_be_hidden()
    page.evaluate("addEventListener('dragover', (event) => { window.over = event; })")
    drag(page, "h1", {"files": [str(ROOT / "LICENSE")]})
    assert page.evaluate("[over.defaultPrevented, over.dataTransfer.dropEffect]") == [True, "none"]
    context.close()
    assert problems == []
