"""The report opened in a real browser: it loads nothing, complains of nothing, and its filters work by clicking."""

import json
import re
import shutil

import make_report
import pytest
from conftest import write_jsonl
from finished_experiment import HOSTILE, RIGHT, write_experiment

from domain_tokens.comparison.report.collect import collect_experiment
from domain_tokens.conditions import CONDITIONS, Condition
from domain_tokens.runs.errors import InputError


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("reported") / "twice"
    for seed in (0, 1):
        write_experiment(root / f"seed_{seed}", seed, RIGHT if seed == 0 else RIGHT[::-1])
    make_report.main([str(root)])
    return root / "report.html"


@pytest.fixture(scope="module")
def report_of_four(tmp_path_factory):
    """Four conditions with two seeds each, with steps."""
    root = tmp_path_factory.mktemp("reported") / "controls"
    right = [(*pair, pair[1], pair[0]) for pair in RIGHT]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("annotated", "placebo"):
            patch.setitem(CONDITIONS, name, Condition(name, "{token}{text}", "a control"))
        for seed in (0, 1):
            write_experiment(root / f"seed_{seed}", seed, right, others=("annotated", "placebo"), with_steps=True)
        make_report.main([str(root)])
    return root / "report.html"


def test_conditions_stand_in_the_order_of_the_experiment(tmp_path):
    write_experiment(tmp_path, 0, [(a, b, b) for a, b in RIGHT], others=("placebo",))
    for groups in (["placebo", "baseline", "mul_tokens"], ["mul_tokens", "something"]):
        (tmp_path / "comparison.json").write_text(json.dumps({"groups": {name: {} for name in groups}}))
        first, *_, last = collect_experiment(tmp_path, None).conditions
        assert (first, last) == (groups[0], "mul_tokens" if groups[0] == "placebo" else "placebo")
    for edited in ({"groups": None}, {"groups": ["placebo"]}, {}):
        (tmp_path / "comparison.json").write_text(json.dumps(edited))
        assert collect_experiment(tmp_path, None).conditions == ["baseline", "mul_tokens", "placebo"]


def test_several_conditions_are_compared_each_with_each(report_of_four):
    page = re.sub(r"\s+", " ", report_of_four.read_text(encoding="utf-8"))
    headings = re.findall("<h3>(.*?)</h3>", page)
    assert headings[0] == "GSM8K (40 questions)"
    assert headings[-1] == "words, bits per byte (60 questions)"
    assert [row[0] for row in cells(page, f"<h3>{headings[0]}</h3>")[1:]] == [
        "mul_tokens − baseline", "annotated − baseline", "placebo − baseline", "annotated − mul_tokens",
        "placebo − mul_tokens", "placebo − annotated",
    ]  # fmt: skip
    assert page.partition("<main>")[0].count("placebo ") == 1, "each condition's accuracy is said once"
    assert '<option value="both">all right</option>' in page
    assert "a fact in the prefix tells the result just as 6*9=54 does" in page
    assert "placebo: 80 of 81 right" in page
    labels = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert [label.partition(".")[0] for label in labels][:2] == ["Right answers", "Bits of the shared text"]
    assert "bits per byte" not in labels[0]
    assert labels[1].count("bits per byte: baseline 0.") + labels[1].count("bits per byte: baseline 1.") == 2


def test_bits_of_validation_rows_are_drawn_where_all_runs_measured_them(report, report_of_four):
    labels = [
        re.findall(r'role="img" aria-label="(Bits of the validation[^"]*)"', page.read_text(encoding="utf-8"))
        for page in (report, report_of_four)
    ]
    assert [len(found) for found in labels] == [0, 2]
    assert labels[1][1].startswith("Bits of the validation rows’ shared text, stage 2: GSM8K")
    assert "placebo, at the end: numbers 0.6250 bits per byte, words 0.6250 bits per byte" in labels[1][1]


def test_what_bits_are_is_said_once(report_of_four):
    assert report_of_four.read_text(encoding="utf-8").count("Bits are those of the shared text") == 1


def test_each_condition_has_its_losses_in_a_panel_of_its_own(report, report_of_four):
    for page, conditions in ((report, 2), (report_of_four, 4)):
        text = page.read_text(encoding="utf-8")
        drawing = text.partition("Loss, stage 1: Tulu</figcaption>")[2].partition("</svg>")[0]
        assert len(re.findall(r'<g id="lossstage1tulu-axes_\d+"', drawing)) == conditions


def test_one_condition_alone_is_no_report(tmp_path):
    write_experiment(tmp_path, 0, RIGHT)
    (tmp_path / "eval_mul_tokens").rename(tmp_path / "away")
    with pytest.raises(InputError, match="evaluations of baseline only; a report needs two conditions to compare"):
        make_report.main([str(tmp_path)])


def test_it_is_one_file_that_names_no_other(report):
    page = report.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    assert page.count("</script>") == 2
    assert HOSTILE not in page


def test_it_says_what_the_comparison_says(report):
    page = re.sub(r"\s+", " ", report.read_text(encoding="utf-8"))
    assert "<h1>GSM8K: no difference shown</h1>" in page
    assert "This is not “no difference”: a run like this could not have seen any." in page
    assert "mul_tokens 62.5%, baseline 50.0%; difference +12.5 points" in page
    assert "baseline: 80 of 81 right" in page
    assert "seed_1/sft_gsm8k_mul_tokens" in page
    assert "commit abcdef0123 with uncommitted changes" in page
    assert "generated" not in page
    assert str(report.parent) not in page.replace(f"Folders below {report.parent}", "")


def cells(page, caption):
    """The rows of the table after a heading or caption, without tags."""
    table = re.sub(r"\s+", " ", page).partition(caption)[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]
    return [[re.sub("<.*?>", "", cell) for cell in row] for row in rows]


def test_it_says_where_every_number_comes_from(report):
    header, *rows = cells(report.read_text(encoding="utf-8"), "Where the numbers come from</h2>")
    assert header == ["run", "folder", "seed", "outcome", "facts", "time", "weights"]
    assert len(rows) == 2 * 4 + 2 * 4
    assert rows[0] == [
        "stage 1: Tulu", "seed_0/sft_tulu_baseline", "0", "1,600 rows, 100 steps, loss 1.5000", "0", "1.5 min",
        "ffffffffffff",
    ]  # fmt: skip
    assert ["evaluation: GSM8K", "seed_1/eval_mul_tokens", "1", "25 of 40 right", "80", "0.4 s", "mul_tokens1"] in rows
    assert rows[-1][:2] == ["evaluation: probes", "seed_1/eval_mul_tokens"]


def test_many_folders_of_one_environment_are_folded_and_few_are_not(tmp_path):
    for seed in range(6):
        write_experiment(tmp_path / f"seed_{seed}", seed, RIGHT, with_probes=False)
    odd = tmp_path / "seed_5/sft_gsm8k_baseline/sft_results.json"
    odd.write_text(json.dumps(json.loads(odd.read_text()) | {"environment": {"commit": "f" * 40, "device": "cpu"}}))
    make_report.main([str(tmp_path)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    folded = re.search(r"<summary>23 folders: device .*?</summary>\n<p class=\"note\">(.*?)</p>", page)[1]
    assert len(folded.split(", ")) == 23
    assert '<p class="note">seed_5/sft_gsm8k_baseline: device cpu, commit ffffffffff.</p>' in page


def test_it_shows_the_recipe_of_each_stage_once_for_conditions_that_share_it(report):
    recipes = re.findall(r"<figcaption>(stage .*?)</figcaption>\n<pre>(.*?)</pre>", report.read_text(), flags=re.DOTALL)
    recipe = "data:\n  subset: null\ntrainer:\n  learning_rate: {}\n"
    assert recipes == [
        ("stage 1: Tulu, baseline and mul_tokens", recipe.format("0.002")),
        ("stage 2: GSM8K, baseline", recipe.format("0.002")),
        ("stage 2: GSM8K, mul_tokens", recipe.format("0.001")),
    ]


def test_losses_of_different_conditions_are_said_not_to_compare(report):
    page = report.read_text(encoding="utf-8")
    assert page.count("Losses per token of different conditions cannot be compared") == 2


def test_a_multiplication_table_without_mistakes_is_a_sentence(tmp_path, report):
    assert "<caption>baseline: 80 of 81 right</caption>" in report.read_text(encoding="utf-8")
    write_experiment(tmp_path, 0, RIGHT, wrong_probes=())
    make_report.main([str(tmp_path)])
    page = re.sub(r"\s+", " ", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "answered right every time, by baseline and mul_tokens: 81 of 81 products." in page
    assert 'class="map"' not in page


def test_generated_data_is_called_generated(tmp_path):
    write_experiment(tmp_path, 0, RIGHT, source="toy")
    make_report.main([str(tmp_path)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>GSM8K (generated data): no difference shown</h1>" in page
    assert "No number on this page says anything about the real ones." in page
    assert not [title for title in re.findall(r"<h2.*?</h2>", page) if "(generated data)" not in title]
    assert not [
        label for label in re.findall(r'role="img" aria-label="(.*?)"', page) if "(generated data)" not in label
    ]


def test_reference_solutions_come_from_the_dataset_if_it_is_still_there(tmp_path):
    row = {"question": "What is 6 times 9 in world 0?", "answer": "6*9=<<6*9=54>>54\n#### 54"}
    other = {"question": "Another question?", "answer": "#### 54"}
    write_jsonl(tmp_path / "data/test.jsonl", [row, other, {"question": 5}])
    write_experiment(tmp_path / "made", 0, RIGHT, dataset=str(tmp_path / "data"))
    make_report.main([str(tmp_path / "made")])
    data = questions(tmp_path / "made/report.html")
    assert [each.get("solution") for each in data["evaluations"][0]["questions"]] == [row["answer"]] + [None] * 39
    (tmp_path / "data/test.jsonl").unlink()
    make_report.main([str(tmp_path / "made")])
    assert not any(
        "solution" in each for each in questions(tmp_path / "made/report.html")["evaluations"][0]["questions"]
    )


def questions(report):
    return json.loads(re.search(r'id="data">(.*?)</script>', report.read_text(encoding="utf-8"))[1])


def test_plots_have_text_alternatives(report):
    labels = re.findall(r'role="img" aria-label="([^"]*)"', report.read_text(encoding="utf-8"))
    assert [label.partition(".")[0] for label in labels] == [
        "Right answers", "Loss, stage 1: Tulu", "Loss, stage 2: GSM8K", "Length of replies, GSM8K",
        "Length of replies, probes",
    ]  # fmt: skip
    assert "GSM8K: baseline 50.0% ± 0.0, mul_tokens 62.5% ± 0.0" in labels[0]
    assert "baseline, at the end: training loss 1.0000, validation loss 1.2500" in labels[1]


def test_folders_that_hold_no_experiment_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        make_report.main([str(tmp_path / "no")])
    with pytest.raises(InputError, match="hold no complete evaluation"):
        make_report.main([str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_page_of_many_seeds_shows_the_replies_of_the_first_ones(tmp_path, monkeypatch):
    for seed in (1, 2, 3):
        write_experiment(tmp_path / f"seed_{seed}", seed, RIGHT, with_probes=False)
    make_report.main([str(tmp_path)])
    whole = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Replies of the first" not in whole
    data = re.search(r'id="data">(.*?)</script>', whole, re.DOTALL)[1]
    assert len(json.loads(data)["evaluations"][0]["seeds"]) == 3
    limit = len(whole.encode()) - len(data) // 4
    monkeypatch.setattr("domain_tokens.comparison.report.page.LONGEST_PAGE", limit)
    make_report.main([str(tmp_path)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [each["seed"] for each in data["evaluations"][0]["seeds"]] == [1, 2]
    assert "Replies of the first 2 of 3 seeds; those of the others are in their predictions files." in page
    assert len(page.encode()) <= limit + 50  # the content's type
    monkeypatch.setattr("domain_tokens.comparison.report.page.LONGEST_PAGE", 1000)  # one seed's stay in any case
    make_report.main([str(tmp_path)])
    assert "Replies of the first of 3 seeds;" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_of_steps_alone_has_no_questions(tmp_path):
    write_experiment(tmp_path, 1, RIGHT, with_steps=True)
    for path in tmp_path.glob("eval_*/*"):
        if not path.name.startswith("steps"):
            path.unlink()
    make_report.main([str(tmp_path)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["evaluations"] == []


def test_models_that_were_mixed_up_or_trained_again_are_refused(tmp_path):
    write_experiment(tmp_path, 1, RIGHT)
    path = tmp_path / "sft_gsm8k_baseline/sft_results.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps(results | {"condition": "mul_tokens"}))
    with pytest.raises(InputError, match="sft_gsm8k_baseline holds a mul_tokens model"):
        make_report.main([str(tmp_path)])
    path.write_text(json.dumps(results | {"condition": "baseline", "weights": "trained again"}))
    tulu = tmp_path / "sft_tulu_baseline/tulu_sft_results.json"
    tulu.write_text(json.dumps(json.loads(tulu.read_text()) | {"weights": "stage 1"}))
    with pytest.raises(InputError, match="eval_baseline is of other weights than .*sft_gsm8k_baseline"):
        make_report.main([str(tmp_path)])


def test_a_condition_that_is_not_evaluated_yet_is_left_out(tmp_path):
    write_experiment(tmp_path, 1, RIGHT)
    (tmp_path / "eval_placebo").mkdir()
    make_report.main([str(tmp_path)])
    assert "placebo" not in (tmp_path / "report.html").read_text().split("<script")[0].split("</style>")[-1]


@pytest.fixture(scope="module")
def browser():
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, report):
    browser.get(report.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    assert browser.title == "twice: GSM8K, no difference shown", "a reply was obeyed"


def choose(browser, control, text):
    from selenium.webdriver.support.select import Select

    Select(browser.find_element("id", control)).select_by_visible_text(text)


def count(browser):
    return browser.find_element("id", "count").text


def test_filters_work_by_clicking(opened):
    assert count(opened) == "40 of 40 questions, the first 25 shown"
    for shown, expected in (
        ("only mul_tokens right", 10), ("only baseline right", 5), ("both right", 15), ("both wrong", 10),
    ):  # fmt: skip
        choose(opened, "verdicts", shown)
        assert count(opened) == f"{expected} of 40 questions"
        assert len(opened.find_elements("css selector", "#list article")) == expected
    assert opened.find_element("css selector", "#list article h3").text == "What is 6 times 9 in world 30?"
    choose(opened, "verdicts", "all")
    opened.find_element("id", "more").click()
    assert count(opened) == "40 of 40 questions"
    assert not opened.find_element("id", "more").is_displayed()
    choose(opened, "seed", "1")
    choose(opened, "verdicts", "only baseline right")
    assert opened.find_element("css selector", "#list article h3").text == "What is 6 times 9 in world 25?"
    choose(opened, "evaluation", "probes")
    choose(opened, "verdicts", "both wrong")
    assert [entry.text for entry in opened.find_elements("css selector", "#list h3")] == ["What is 6 times 9?"]


def test_search_finds_questions_and_replies_and_facts_are_marked(opened):
    search = opened.find_element("id", "search")
    search.send_keys("world 12?")
    assert count(opened) == "1 of 40 questions"
    sides = opened.find_elements("css selector", "#list .side")
    assert [side.find_element("tag name", "p").text for side in sides] == [
        "baseline: right, read as 54 · 17 tokens", "mul_tokens: wrong, read as 55 · 18 tokens, 2 of them facts",
    ]  # fmt: skip
    assert [len(side.find_elements("tag name", "mark")) for side in sides] == [0, 2]
    assert sides[1].find_element("tag name", "mark").text == "6×9=54"
    search.clear()
    search.send_keys("ONERROR")
    assert opened.find_element("css selector", "#list pre").text == HOSTILE


def test_questions_are_sorted_and_marks_are_coloured(opened):
    first = "#list article h3"
    choose(opened, "order", "longest replies first")
    assert opened.find_element("css selector", first).text == "What is 6 times 9 in world 39?"
    choose(opened, "order", "most facts first")
    assert opened.find_element("css selector", first).text == "What is 6 times 9 in world 0?"
    script = "return getComputedStyle(document.querySelector(arguments[0]), '::before').color"
    colors = [opened.execute_script(script, f"#list .verdict-{verdict}") for verdict in ("right", "wrong")]
    assert colors == ["rgb(0, 128, 76)", "rgb(192, 58, 0)"]


def test_a_large_page_is_compressed_and_works_alike(browser, report, tmp_path, monkeypatch):
    monkeypatch.setattr("domain_tokens.comparison.report.questions.LONGEST_TEXT", 1000)
    make_report.main([str(report.parent), "--output-path", str(tmp_path / "large.html")])
    assert (tmp_path / "large.html").stat().st_size < report.stat().st_size - 10_000
    shown = []
    for page in (report, tmp_path / "large.html"):
        browser.get(page.as_uri())
        shown.append((count(browser), browser.find_element("id", "list").text))
    assert shown[0] == shown[1]
    assert shown[0][0]


def test_a_link_leads_to_one_question(browser, report):
    browser.get("about:blank")
    browser.get(f"{report.as_uri()}#mul_table-6x9")
    linked = browser.find_element("css selector", ".linked")
    assert linked.find_element("tag name", "h3").text == "What is 6 times 9?"
    assert linked.find_element("tag name", "a").get_attribute("href").endswith("report.html#mul_table-6x9")
    top = browser.execute_script("return arguments[0].getBoundingClientRect().top", linked)
    controls = browser.find_element("id", "controls")
    assert browser.execute_script("return arguments[0].getBoundingClientRect().bottom", controls) < top < 900
    browser.execute_script("location.hash = '#gsm8k-00039'")
    assert browser.find_element("css selector", ".linked h3").text == "What is 6 times 9 in world 39?"


def test_it_can_be_used_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    body = opened.find_element("tag name", "body")
    body.send_keys(Keys.TAB)
    assert opened.switch_to.active_element.text == "Skip to the questions"
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    body.send_keys(Keys.TAB)
    assert opened.switch_to.active_element.get_attribute("id") == "evaluation"
    opened.find_element("id", "more").send_keys(Keys.ENTER)
    assert opened.switch_to.active_element.text.startswith("What is 6 times 9 in world 25?")


@pytest.mark.parametrize("width", [360, 400, 1000, 1160, 1400])
@pytest.mark.parametrize("which", ["report", "report_of_four"])
def test_nothing_sticks_out_of_the_page(browser, request, which, width):
    report = request.getfixturevalue(which)
    device = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    browser.get(report.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    for cell in browser.find_elements("css selector", ".stacked tbody td, figure pre"):
        assert 0 < cell.rect["width"] <= cell.rect["x"] + cell.rect["width"] <= width, cell.text
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(
    ("scheme", "ink", "paper"), [("light", "28, 28, 28", "255, 255, 255"), ("dark", "230, 230, 227", "22, 24, 27")]
)
def test_plots_and_page_follow_the_colour_scheme(browser, report, scheme, ink, paper):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(report.as_uri())
    text = browser.find_element("css selector", "figure svg text")
    assert ink in text.value_of_css_property("fill")
    assert paper in browser.find_element("tag name", "body").value_of_css_property("background-color")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_print_shows_whole_tables_and_no_controls(browser, report):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.get(report.as_uri())
    assert not browser.find_element("id", "controls").is_displayed()
    facts = browser.find_elements("css selector", ".usage tbody tr")
    assert len(facts) == 45
    assert facts[44].size["height"] > 0, "the folded table is printed"
    assert browser.find_element("css selector", ".wide").value_of_css_property("overflow-x") == "visible"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
