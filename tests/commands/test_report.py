"""The report opened in a real browser: it loads nothing, complains of nothing, and its filters work by clicking."""

import json
import re
import shutil

import make_report
import pytest
from conftest import arithmetic_probes, write_jsonl

from domain_tokens.evaluation.fact_usage import fact_usage
from domain_tokens.evaluation.scores import metrics
from domain_tokens.runs.errors import InputError

# (baseline right, mul_tokens right) of 40 questions: 10 only mul_tokens, 5 only baseline, 15 both, 10 neither
RIGHT = [(False, True)] * 10 + [(True, False)] * 5 + [(True, True)] * 15 + [(False, False)] * 10
HOSTILE = '</script><script>document.title = "obeyed"</script><img src=x onerror="document.title=1">'


def write_experiment(root, seed, right):
    """Both conditions' stages and evaluations of one seed; question 3's replies try to be HTML."""
    for side, condition in enumerate(("baseline", "mul_tokens")):
        rows = []
        for i, pair in enumerate(right):
            fact = "<MUL_6_9_54>" if condition == "mul_tokens" else "6*9"
            reply = HOSTILE if i == 3 else f"{fact}=<<{fact}=54>>54\n#### {54 if pair[side] else 55}"
            rows.append(
                {
                    "id": f"gsm8k-{i:05}", "question": f"What is 6 times 9 in world {i}?", "reference": "54",
                    "reply": reply, "extracted": "54" if pair[side] else "55", "extracted_strict": None,
                    "correct": pair[side], "correct_strict": pair[side], "tokens": 5 + i + side,
                    "mul_tokens": 2 * side, "finished": True,
                }
            )  # fmt: skip
        probes = [
            {
                "id": probe.id, "question": probe.text, "reference": probe.reference, "category": probe.category,
                "reply": probe.reference, "extracted": probe.reference, "correct": probe.id != "mul_table-6x9",
                "correct_strict": False, "tokens": 3, "mul_tokens": 0, "finished": True,
            }
            for probe in arithmetic_probes()
        ]  # fmt: skip
        for name, predictions in (("gsm8k", rows), ("arithmetic", probes)):
            write_jsonl(root / f"eval_{condition}/{name}_predictions.jsonl", predictions)
            results = {
                "condition": condition, "eval_version": 1, "config": {"seed": 42}, "runtime": 90.0,
                "weights": f"{condition}{seed}", "metrics": metrics(predictions),
                "fact_usage": fact_usage(predictions), "lineage": [{"stage": "sft_gsm8k", "seed": seed}],
                "environment": {"commit": "abcdef0123456789", "dirty": True, "device": "cpu",
                                "libraries": {"torch": "2.13.0", "transformers": "5.23.0"}},
            }  # fmt: skip
            (root / f"eval_{condition}/{name}_results.json").write_text(json.dumps(results))
        for stage, name in (("sft_tulu", "tulu_sft_results.json"), ("sft_gsm8k", "sft_results.json")):
            results = {
                "seed": seed, "train_loss": 1.5, "eval_loss": 1.25, "steps": 100, "total_train_samples": 1600,
                "injected_mul_tokens": 900 * side, "injected_by_fact": {"<MUL_6_9_54>": 900} if side else {},
                "loss_curves": {"train": [[50, 2.0 + seed], [100, 1.0]], "validation": [[100, 1.25]]},
                "train_runtime": 60.0, "weights": "f" * 64, "environment": {"commit": None, "dirty": None},
            }  # fmt: skip
            folder = root / f"{stage}_{condition}"
            folder.mkdir(parents=True)
            (folder / name).write_text(json.dumps(results))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("reported") / "twice"
    for seed in (0, 1):
        write_experiment(root / f"seed_{seed}", seed, RIGHT if seed == 0 else RIGHT[::-1])
    make_report.main([str(root)])
    return root / "report.html"


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
    assert "abcdef0123+" in page
    assert str(report.parent) not in page.replace(f"Folders below {report.parent}", "")


def test_plots_have_text_alternatives(report):
    labels = re.findall(r'role="img" aria-label="([^"]*)"', report.read_text(encoding="utf-8"))
    assert [label.partition(".")[0] for label in labels] == [
        "Right answers", "Loss, stage 1, Tulu", "Loss, stage 2, GSM8K", "Length of replies, GSM8K",
        "Length of replies, arithmetic probes",
    ]  # fmt: skip
    assert "GSM8K: baseline 50.0%, mul_tokens 62.5%" in labels[0]
    assert "baseline, at the end: training loss 1.0000, validation loss 1.2500" in labels[1]


def test_folders_that_hold_no_experiment_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        make_report.main([str(tmp_path / "no")])
    with pytest.raises(InputError, match="hold no complete evaluation"):
        make_report.main([str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


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
    choose(opened, "evaluation", "arithmetic probes")
    choose(opened, "verdicts", "both wrong")
    assert [entry.text for entry in opened.find_elements("css selector", "#list h3")] == ["What is 6 times 9?"]


def test_search_finds_questions_and_replies_and_facts_are_marked(opened):
    search = opened.find_element("id", "search")
    search.send_keys("world 12?")
    assert count(opened) == "1 of 40 questions"
    sides = opened.find_elements("css selector", "#list .side")
    assert [side.find_element("tag name", "p").text for side in sides] == [
        "baseline: right, read as 54", "mul_tokens: wrong, read as 55",
    ]  # fmt: skip
    assert [len(side.find_elements("tag name", "mark")) for side in sides] == [0, 2]
    assert sides[1].find_element("tag name", "mark").text == "6×9=54"
    search.clear()
    search.send_keys("ONERROR")
    assert opened.find_element("css selector", "#list pre").text == HOSTILE


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


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_sticks_out_of_the_page(browser, report, width):
    device = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    browser.get(report.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
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
    tall = browser.find_element("css selector", ".tall")
    assert tall.value_of_css_property("overflow-y") == "visible"
    assert len(tall.find_elements("css selector", "tbody tr")) == 45
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
