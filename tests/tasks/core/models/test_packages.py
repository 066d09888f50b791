"""A package that a checkpoint lacks is named with the command that installs it."""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from tasks.core.models.packages import EXTRAS, missing_package
from tasks.core.models.policy import PolicyError, load_policy
from tests.support.paths import ROOT
from tests.support.tiny_models import tiny

from transformers import SmolVLMVideoProcessor  # isort: skip  # after torchvision's operators


def test_every_extra_is_declared_with_its_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert EXTRAS and {extra: [package] for package, extra in EXTRAS.items()}.items() <= declared.items()


def test_other_errors_are_none_of_its_business() -> None:
    assert missing_package(ImportError("cannot import name 'x'")) is None
    assert missing_package(ValueError("num2words")) is None


@pytest.mark.skipif(find_spec("num2words") is not None, reason="the package is installed")
def test_smolvlm_without_its_package_is_refused_in_a_line_with_the_command(tmp_path: Path) -> None:
    policy = tiny("smolvlm")
    policy.model.save_pretrained(tmp_path)
    policy.processor.save_pretrained(tmp_path)
    SmolVLMVideoProcessor().save_pretrained(tmp_path)
    for name in ("processor_config.json", "tokenizer_config.json"):  # tiny models have the processor of Idefics3
        file = tmp_path / name
        file.write_text(file.read_text().replace("Idefics3Processor", "SmolVLMProcessor"))
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path, digest="")
    assert "needs the package num2words" in str(caught.value) and "pip install --editable '.[smolvlm]'" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
