"""What the documentation lists is what the sources say."""
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding="utf-8") as f:
        return f.read()


def sources(folder, ending):
    for where, _, names in os.walk(os.path.join(ROOT, folder)):
        for name in names:
            if name.endswith(ending) and not name.endswith("_test.c"):
                yield read(where, name)


def test_every_event_of_the_log_is_explained():
    events = set()
    for text in [*sources("src/daemon", ".c"), *sources("src/host", ".c")]:
        events |= set(re.findall(r'xi_log\(\s*XI_[A-Z]+,\s*"([a-z._]+)"', text))
    assert len(events) > 20
    page = read("docs", "operating.md")
    assert not [e for e in sorted(events) if "`%s`" % e not in page]


def test_every_error_code_is_in_the_api_reference():
    codes = re.findall(r"^\s*X\((E[A-Z]+), (\d+),", read("src", "base", "status.h"), re.M)
    assert len(codes) > 40
    page = read("docs", "api.md")
    assert not [c for _, c in codes if "XI-0" + c not in page]


def test_links_between_pages_lead_somewhere():
    pages = ["README.md", *("docs/" + n for n in os.listdir(os.path.join(ROOT, "docs"))
                            if n.endswith(".md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(page)):
            if "://" not in target:
                path = os.path.normpath(os.path.join(ROOT, os.path.dirname(page), target))
                assert os.path.exists(path), "%s links to %s" % (page, target)
