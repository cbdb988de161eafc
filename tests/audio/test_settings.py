"""Settings of features: presets, conflicts and the section of the configuration."""

from __future__ import annotations

import json

import pytest

from dali_asr import Config
from dali_asr.audio.settings import PRESETS, FeatureSettings
from dali_asr.errors import ConfigError, UsageError
from dali_asr.segments import FrameTiming


def test_timings_of_presets() -> None:
    assert PRESETS["course"].timing == PRESETS["kaldi"].timing == FrameTiming(16_000, 400, 160)
    assert PRESETS["librosa"].timing == FrameTiming(22_050, 2048, 512, centered=True)
    assert PRESETS["course"].timing.period == 0.01
    assert [PRESETS[name].feature_dim for name in PRESETS] == [28, 13, 20]


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_survive_json(preset: str) -> None:
    values = json.loads(json.dumps(FeatureSettings.of(preset, mel_bands=50).to_json()))
    assert FeatureSettings.from_json(values) == FeatureSettings.of(preset, mel_bands=50)
    assert FrameTiming(**values["timing"]) == PRESETS[preset].timing


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("htk", {}, "preset: received 'htk'; allowed are course, kaldi, librosa"),
        ("course", {"bands": 3}, "bands: unknown key"),
        ("course", {"hop": 0.0}, "hop: received 0.0; expected more than 0"),
        ("course", {"kind": "mel"}, "kind: received 'mel'; allowed are mfcc, log-mel, log-power"),
        ("course", {"sample_rate": 44_100}, "n_fft: received 512, less than the 1102 samples of a window"),
        ("course", {"max_frequency": 9_000.0}, "max_frequency: received 20 to 9000 Hz"),
        ("course", {"coefficients": 41}, "coefficients: received 41, more than the 40 mel bands"),
        ("course", {"energy": True}, "energy: received true"),
        ("kaldi", {"window_function": "hann"}, "window_function: received hann; remove_dc needs povey"),
        ("kaldi", {"centered": True}, "centered: received true"),
        ("kaldi", {"mel_scale": "slaney"}, "mel_scale: received slaney"),
    ],
)
def test_conflicts_are_named(preset: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FeatureSettings.of(preset, **changes)


def test_a_section_is_completed_by_its_preset() -> None:
    found = Config.check({"features": {"preset": "kaldi", "coefficients": 20}}).features
    assert found == FeatureSettings.of("kaldi", coefficients=20)
    assert Config.load(None, ["features.preset=librosa"]).features == PRESETS["librosa"]
    assert Config.check({}).features == PRESETS["course"]
    with pytest.raises(ConfigError, match=r"features: n_fft: received 256, less than the 400 samples"):
        Config.check({"features": {"n_fft": 256}})
    with pytest.raises(ConfigError, match=r"features\.preset: received 'kaldy'; .* did you mean kaldi\?"):
        Config.check({"features": {"preset": "kaldy"}})
