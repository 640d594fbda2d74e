"""docs/job-service-client.md shows the client as it is."""

from tests.support.client_reference import PAGE, render


def test_the_page_is_what_the_code_renders():
    """Fields, options, failure classes, metadata and the example are those of the code."""
    page = PAGE.read_text()
    assert render(page) == page, "run: python -m tests.support.client_reference"
