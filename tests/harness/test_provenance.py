"""What a report says of its origin."""

from importlib.metadata import version

from harness.provenance import versions


def test_a_package_that_was_never_installed_is_told_from_one_that_was() -> None:
    told = versions("never-made")
    assert told["numpy"] == version("numpy")
    assert told["never-made"] == "not installed"
