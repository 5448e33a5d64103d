"""Evidence boxes: a claim, what was measured, and a verdict by rule.

A claim is taken apart into findings, each of them a comparison of records that comes out one
way or the other; no verdict is written by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from claims import CLAIMS, Claim
from comparisons import DEPTHS, Arms, arms
from findings import Finding, Shown
from mkdocs.exceptions import PluginError
from records import RECORDS, Results
from wording import PENDING, UNMEASURED, badge, markdown_table, percent

from cifar_resnet.experiments import Experiment, jobs, select
from cifar_resnet.recipe import changes

OPEN = "待定"
_KINDS = {"支持": "yes", "部分支持": "partly", "不支持": "no", OPEN: "open"}
_SPEAKS = {True: "（<strong>符合</strong>）。", False: "（<strong>不符</strong>）。", None: "。"}


@dataclass(frozen=True)
class _Seen:
    """What is known of a claim.

    Attributes:
        shown: findings and their chart.
        sources: the experiment or the analyses that gave them.
        records: ids of what they were drawn from.
        queued: fuller experiments that are still to come.
        shortened: whether networks were trained for few epochs.
        limits: what the verdict holds for only, in words.
    """

    shown: Shown
    sources: tuple[str, ...]
    records: frozenset[str]
    queued: tuple[str, ...] = ()
    shortened: bool = False
    limits: str = ""

    def badge(self, results: Results) -> str:
        """The verdict, and what it holds for only."""
        verdict = _verdict(self.shown.findings)
        scope = f'<span class="verdict-scope">{self.limits}</span>' if self.limits else ""
        old = results.mark(self.records)
        return f"{badge(_KINDS[verdict], verdict)}{scope}{old}"


def evidence(results: Results, name: str) -> str:
    """A box: the claim, what was measured, and the verdict."""
    claim = _claim(name)
    seen = _look(claim, results)
    if seen is None:
        waiting = _code(claim.experiments or claim.analyses)
        what = f"{PENDING} 实验已在队列里" if claim.experiments else f"{UNMEASURED} 由分析给出"
        return _box(name, "", f"<p>{what}：{waiting}。</p>", "")
    findings = "".join(
        f"<li>{finding.words}{_SPEAKS[finding.holds]}</li>" for finding in seen.shown.findings
    )
    source = seen.shown.conditions
    if claim.analyses:
        links = (f"[`{name}`]({RECORDS}/{name}.json)" for name in seen.sources)
        source = f"分析 {'、'.join(links)}：{_trained(claim, results)}{source}"
    for experiment in select(seen.queued) if seen.queued else ():
        (epochs,) = {job.recipe.epochs for job in jobs([experiment])}
        networks = {job.recipe.network for job in jobs([experiment])}
        network = f"网络 `{networks.pop()}`，" if len(networks) == 1 else ""
        source += (
            f"这是缩短的版本；完整的 `{experiment.name}`（{network}{epochs} 轮，"
            f"{len(experiment.seeds)} 个种子）还在队列里。"
        )
    chart, drawn = seen.shown.chart, _drawn_before(name)
    if drawn:
        chart = f'<p>图见<a href="#evidence-{drawn}">上一处证据</a>。</p>'
    return _box(name, seen.badge(results), f"{chart}<ul>{findings}</ul>", source)


def _drawn_before(name: str) -> str | None:
    """An earlier claim of the page that shows the same runs, all arms of an experiment."""
    claim = CLAIMS[name]
    if not claim.experiments or claim.arms:
        return None
    shows = (claim.page, claim.experiments)
    first = next(key for key, other in CLAIMS.items() if (other.page, other.experiments) == shows)
    return first if first != name else None


def _trained(claim: Claim, results: Results) -> str:
    """Which runs the weights of a claim's analyses come from."""
    runs = {run.id: run for run in results.runs}
    names = dict.fromkeys(results.analyses[name].weights_record for name in claim.analyses)
    told = [
        f"`{run.recipe.network}` 按配方 `{run.recipe.name}` 训练 {run.recipe.epochs} 轮，"
        f"种子 {run.seed}，"
        f"测试准确率 {percent(run.metrics.accuracy)}"
        for run in (runs[name] for name in names if name in runs)
    ]
    return f"权重取自 {'；'.join(told)}。" if told else ""


def claims(results: Results) -> str:
    """Every claim with its verdict, as a Markdown table."""
    rows = []
    for name, claim in CLAIMS.items():
        seen = _look(claim, results)
        waiting = PENDING if claim.experiments else UNMEASURED
        verdict = seen.badge(results) if seen else waiting
        source = _code(seen.sources if seen else claim.experiments or claim.analyses)
        origin = f"出自：{claim.origin}；证据：{source}"
        rows.append(
            (
                f"[{claim.words}]({claim.page}#evidence-{name})"
                f'<span class="claim-origin">{origin}</span>',
                verdict,
            )
        )
    return markdown_table(("论断", "判定"), rows)


def tally(results: Results) -> str:
    """How many claims came out which way."""
    seen = [_look(claim, results) for claim in CLAIMS.values()]
    if not any(seen):
        return PENDING
    verdicts = [_verdict(found.shown.findings) if found else OPEN for found in seen]
    counts = (
        f"{badge(_KINDS[verdict], verdict)}\u00a0{count}\u00a0条"
        for verdict in _KINDS
        if (count := verdicts.count(verdict))
    )
    told = f'<span class="tally">{len(CLAIMS)} 条论断，{"，".join(counts)}</span>'
    short = sum(bool(found and found.shortened) for found in seen)
    return told + f"；其中 {short} 条目前只有缩短的训练可用，判定还可能改变" * bool(short)


def _claim(name: str) -> Claim:
    if name not in CLAIMS:
        raise PluginError(f"no claim is called {name!r}; there are: {', '.join(CLAIMS)}")
    return CLAIMS[name]


def _look(claim: Claim, results: Results) -> _Seen | None:
    """What is known of a claim: by the fullest experiment that decides it, if one does."""
    if claim.analyses:
        if any(name not in results.analyses for name in claim.analyses):
            return None
        shown = claim.show({name: results.analyses[name] for name in claim.analyses})
        shortened, limits = _analysed(claim, results)
        known = frozenset(claim.analyses)
        return _Seen(shown, claim.analyses, known, shortened=shortened, limits=limits)
    found = []
    for index, name in enumerate(claim.experiments):
        (experiment,) = select([name])
        every = arms(experiment, results.runs)
        runs = {label: every[label] for label in claim.arms or every}
        if all(runs.values()):
            ids = frozenset(run.id for group in runs.values() for run in group)
            shown = claim.show(experiment=experiment, runs=runs)
            queued = claim.experiments[:index]
            limits = _limits(experiment, runs, shortened=bool(queued))
            found.append(_Seen(shown, (name,), ids, queued, bool(queued), limits))
    decided = (seen for seen in found if _verdict(seen.shown.findings) != OPEN)
    return next(decided, found[0] if found else None)


def _analysed(claim: Claim, results: Results) -> tuple[bool, str]:
    """Whether weights that a claim's analyses use had few epochs; what its verdict holds for."""
    of = {results.analyses[name].weights_record for name in claim.analyses}
    if "" in of:
        return False, "只一组随机初值"
    trained = [run.recipe for run in results.runs if run.id in of]
    short = sorted({recipe.epochs for recipe in trained if "epochs" in changes(recipe)})
    told = f"，有的只训练 {'、'.join(map(str, short))} 轮" if short else ""
    return bool(short), f"每种网络只一个{told}"


def _limits(experiment: Experiment, runs: Arms, *, shortened: bool) -> str:
    """The smaller network, few epochs, missing seeds."""
    recipes = [run.recipe for group in runs.values() for run in group]
    networks = {recipe.network for recipe in recipes}
    epochs = sorted({recipe.epochs for recipe in recipes})
    parts = [DEPTHS.get(networks.pop(), "")] if len(networks) == 1 else []
    if shortened:
        parts.append(f"只训练 {'、'.join(map(str, epochs))} 轮")
    if min(map(len, runs.values())) < len(experiment.seeds):
        parts.append("种子未满")
    return "，".join(filter(None, parts))


def _verdict(findings: Sequence[Finding]) -> str:
    outcomes = [finding.holds for finding in findings]
    if None in outcomes:
        return OPEN
    if all(outcomes):
        return "支持"
    return "部分支持" if any(outcomes) else "不支持"


def _box(name: str, badge: str, body: str, source: str) -> str:
    """HTML, and a last paragraph in Markdown, so that MkDocs checks its links."""
    claim = CLAIMS[name]
    quote = f"{claim.origin}的原话：“{claim.quote}”" if claim.quote else ""
    return (
        f'<div class="evidence" id="evidence-{name}" markdown="1">\n\n'
        '<div markdown="0">'
        f'<p class="evidence-title">证据{badge}</p>'
        f"<p>论断：{claim.words}。{quote}</p>{body}</div>\n\n"
        + (f"{source}\n{{: .evidence-source }}\n\n" if source else "")
        + "</div>"
    )


def _code(names: Sequence[str]) -> str:
    return "、".join(f"<code>{name}</code>" for name in names)
