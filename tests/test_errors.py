"""Exceptions and their exit codes."""

from __future__ import annotations

import dali_asr.errors as errors


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    document = errors.__doc__ or ""
    classes = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    for error in classes:
        assert error.__name__ in document
    assert errors.ConfigError("x", ["y"]).exit_code == errors.UsageError.exit_code == 2
    assert errors.CheckpointError.exit_code == errors.DataError.exit_code == errors.DeviceError.exit_code == 1


def test_a_near_name_is_suggested() -> None:
    assert errors.did_you_mean("Trian", ["train", "dev"]) == "; did you mean train?"
    assert errors.did_you_mean("dev", ["train-clean", "dev-clean"]) == "; did you mean dev-clean?"
    assert errors.did_you_mean("dev", ["dev-of-the-course", "dev-of-the-others"]) == "", "it may be either"
    assert errors.did_you_mean("d", ["train-clean", "dev-clean"]) == ""
    assert errors.did_you_mean("zzz", ["train", "dev"]) == ""
